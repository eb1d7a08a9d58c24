// Package lab builds small real networks: network namespaces stand for pods, joined by bridges, with real sockets and real
// packets. The demo and each test that needs a kernel use it.
//
//	Lab (namespace with bridges)
//	 ├── Host "server": net1 10.9.0.1 ── Serve ◄─┐
//	 ├── Host "client": net1 10.9.0.2 ── Probe ──┘ ─► Allowed, Dropped or Failed
//	 └── Host …
//
// A Lab owns its namespaces. They have no names, and only descriptors hold them open, so the kernel removes them even if the
// process is killed. A Lab never changes an interface in the network namespace of the process. New namespaces need
// CAP_SYS_ADMIN. Main and Reexec get it without root, in a user namespace.
package lab
