// Package apiserver describes a real API server with etcd, for programs that start both as processes of this machine. The
// programs start them in their own way: with memory limits, or with a scheduling policy.
//
//	hack/cluster/bootstrap.sh ─► Binary ──────────────┐
//	Server: folder, ports     ─► Etcd, APIServer ─────┼─► caller: starts and ends the processes
//	                          ─► WriteFiles: keys ────┘
//	                          ─► WriteKubeconfig ─► clients
package apiserver
