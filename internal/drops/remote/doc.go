// Package remote follows the packets that the agents of a cluster report, from any machine.
//
//	API server ─► nodes of the pods ─► a follower for each node ─► port-forward ─► drops.Hub of the agent there
//	                                        │
//	output ◄────────────────────────────────┘ retries when the agent goes away
package remote
