// Command scale measures an agent in a cluster of any size.
//
//	server.go: an API server ── watch lists, events ──► agent.go: informers ─► cache ─► reconciler ─► kernel
//	cluster.go: its objects      (HTTP, protobuf)       in a process of its own, with real network namespaces
//
// The server makes the objects while it sends them, so a cluster of a million pods takes no memory. The agent's side is the
// product's own code, apart from the container runtime: all local pods run in network namespaces that scale makes.
//
// The parts api and enforcement run on a real API server with etcd (hack/apiserver); kubelet.go has the kubelets for the latter.
//
// For each cluster, scale prints the agent's heap per remote pod, its time from the last object until all rules are in force,
// and, under churn, its latency and CPU time. It needs root.
package main
