// Package cluster serves the protocols of an API server and a container runtime from memory, for tests. Real clients connect
// over real sockets, and the test can inject faults.
//
//	informers.Files, Fault ─► API, over HTTP          ─► informers of the agent under test
//	Sandbox                ─► Runtime (CRI), over gRPC ─► sandbox watcher of the agent
//	Pod                    ─► NRI, over ttrpc          ─► plugin of the agent
package cluster
