// Command bench measures the cost of changes and packets: of this agent, of the netlink floor, and of agents that run nft
// or use google/nftables.
//
//	-changes   world: states ─► ways: floor, engine, agent,  ─► tables in a fleet of ─► samples ─┐
//	           and events       google/nftables, knftables,     network namespaces               │
//	                            rewrite                                                          │
//	-events    apiServer ─► wholeAgent, a process ─► network namespaces ─► acks ────────────────┼─► report: Markdown, JSON, SVG
//	-datapath  lanes: a link with rules in a style ─► sender floods ─► sink ─────────────────────┘
//
// The floor is the least cost of a change: a system call sends prepared messages, and a second system call reads the
// acknowledgement. All tables are in network namespaces that the command creates, so it runs as root or in a user namespace.
//
//	go run ./hack/bench                    everything, in a few minutes
//	go run ./hack/bench -changes -full     only changes, at all sizes
//	go run ./hack/bench -large             a pod with 200 policies, 16 interfaces, 100,000 peers and 5,000 ports
//	go run ./hack/bench -write docs/performance.md -chart docs/latency.svg
package main
