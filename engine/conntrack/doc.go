// Package conntrack tells the connection tracking of a network namespace about connections that it has not seen begin.
//
// The kernel tracks connections only where a rule needs it, so it tracks nothing in a pod before the pod's first policy.
// Then it would take the sender of the next packet for the one who opened the connection: a client would become a server
// that replies, and replies pass. The sockets of the pod know better. Seed asks for them (sock_diag(7)), decides for each
// connection who opened it, and makes the kernel's entry (linux/netfilter/nfnetlink_conntrack.h).
package conntrack
