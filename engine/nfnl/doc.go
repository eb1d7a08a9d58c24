// Package nfnl speaks nfnetlink, the protocol of nf_tables and of connection tracking (linux/netfilter/nfnetlink.h), over a
// lasting socket in the network namespace of a pod.
//
//	Messages: Begin, Uint32, Nest, …, End ──► Do, Ask ──► Conn ──► kernel
//	(messages.go, buffer.go)                (exchange.go)  (conn.go)  │
//	                                                                  │
//	visit(Attrs) ◄── Attrs ◄── Answer ◄───────────────────────────────┘
//	                (attrs.go)    └─ MessageError (answer.go)
//
// A caller writes requests into Messages, each with a Label for errors. Do sends requests that change something, most often
// an nf_tables batch between BeginBatch and EndBatch. Ask sends questions, and passes on the attributes of the answers.
//
// Two other netlink families tell the sockets and the addresses of a pod, which nfnetlink does not (families.go).
//
// The package knows the frame of a batch but no other message. Packages engine, engine/trace and engine/conntrack write the
// messages.
package nfnl
