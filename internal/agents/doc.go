// Package agents finds the agents of a cluster and asks them, from any machine, by the rights of the user of a kubeconfig.
//
//	Client ─┬─► API server ─► pods of the agents, by node
//	        └─► Transport ─► port-forward ─► HTTP on loopback of a node
package agents
