// Package uapi has constants of Linux's headers, under the names of golang.org/x/sys/unix, for every operating system.
//
//	headers of Linux ─► golang.org/x/sys/unix, on Linux only ─► sockets, netlink messages
//	                └─► uapi ─► expr, the text of rulesets, headers of packets
//
// The packages that make and explain rules need the constants on any machine. A constant is here only if such a package uses it. A test
// compares all constants with golang.org/x/sys/unix.
package uapi
