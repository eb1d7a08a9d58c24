// Package demo shows the agent at work without a cluster. Network namespaces stand for pods, manifests replace the API server,
// and real packets show the connections that pass.
//
//	files/cluster, files/policies ─► agent.Pipeline ─► table in each namespace ─► probes ─► compared with files/expected.txt
package demo
