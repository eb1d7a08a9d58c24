// Package nfnl speaks nfnetlink, the protocol of the kernel's packet filters (linux/netfilter/nfnetlink.h), over one lasting
// socket in one network namespace.
//
//	Messages: Begin, Uint32, Nest, …, End ──► Do ──► Conn ──► kernel
//	                                          Ask ◄── answers
//
// Do sends messages that change something: the kernel takes all or refuses all. Ask sends questions. The package knows no
// message by name; packages engine, engine/trace and engine/conntrack do.
package nfnl
