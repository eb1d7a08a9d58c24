// Package node makes a node of a cluster without its agent, for tests: pods in network namespaces of a real kernel, and an API
// server and a container runtime on real sockets. Package cluster serves the protocols, and package lab makes the network.
//
//	Files ─► API ◄── agent under test ──► Runtime
//	                     │
//	                     ▼
//	Hosts: server 10.9.0.1, friend 10.9.0.2, stranger 10.9.0.3
package node
