// Package demo shows the agent at work without a cluster: network namespaces stand for pods, example manifests for the
// API server, and real packets show who reaches whom.
//
//	files/cluster, files/policies ─► agent.Pipeline ─► table in each namespace ─► probes ─► compared with files/expected.txt
package demo
