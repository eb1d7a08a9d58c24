// Package query answers for a whole cluster, from any machine, where policies are enforced and why not elsewhere. It needs nothing in
// the cluster but the agents: no object is stored, and nothing is sent while nobody asks.
//
//	API server ─► policies ─► pods that they select ─► nodes ─► agents there ─┐
//	                                                                          ▼
//	Report ◄─ merge ◄─ answers of package enforcement ◄─ port-forward to loopback of each node
package query
