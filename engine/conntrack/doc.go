// Package conntrack makes the entries that the connection tracking of a network namespace would have if it had run since the
// pod started.
//
// The kernel tracks connections in a namespace only while a rule asks for it. In a pod without policies it tracks nothing.
// When the first rule comes, the kernel has no entry for the connections that exist, and takes the sender of the next packet
// for the end that opened the connection. Two things go wrong: a server's next packet makes its client a server, whose
// packets pass as replies; and a stream that the pod has requested is new, and forbidden, until the pod itself sends.
//
// The pod's own sockets know better:
//
//	sockets of the pod ──► flows: which end opened each ──► entries of connection tracking
//	(sock_diag, socket.go)          (flow.go)               (ctnetlink, entry.go; seed.go puts all together)
//
// A UDP socket that never called connect(2) knows no peers, so Seed returns the ports of such sockets. TurnServed corrects the
// entries of their peers later, when packets have made entries.
//
// Seed also makes an entry that no packet has, the mark. If the mark is gone while policies are in force, another process has
// deleted all entries, and they have to be made again. RemoveMark removes it with the last policy.
package conntrack
