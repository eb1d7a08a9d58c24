// Package apiserver describes a real API server with etcd, for programs that start both as processes of this machine. The
// programs may start them in their own way, for instance with memory limits, or let Start do it.
//
//	hack/cluster/bootstrap.sh ─► Binary ──────────────┐
//	Server: folder, ports     ─► Etcd, APIServer ─────┼─► caller: starts and ends the processes
//	                          ─► WriteFiles: keys ────┘
//	                          ─► WriteKubeconfig ─► clients
package apiserver
