// Package lab builds small real networks: network namespaces stand for pods, joined by bridges, with real sockets and real
// packets. The demo and each test that needs a kernel use it.
//
//	Lab (namespace with bridges)
//	 ├── Host "server": net1 10.9.0.1 ── Serve ◄─┐
//	 ├── Host "client": net1 10.9.0.2 ── Probe ──┘ ─► Allowed, Dropped or Failed
//	 └── Host …
//
// A Lab owns its namespaces. They are anonymous, and only descriptors hold them open, so nothing is left behind even if the
// process is killed. A Lab never touches an interface of the namespace of the process. Namespaces need CAP_SYS_ADMIN; Main and
// Reexec get it without root, through a user namespace.
package lab
