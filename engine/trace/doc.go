// Package trace follows packets through the nftables rules of a network namespace, as `nft monitor trace` does.
//
//	Filter ─► table that marks packets ─► kernel ─► events ─► assembler ─► Packet with its Steps
//	(filter.go)  (table.go)                        (event.go)     ▲      (assembler.go)
//	                                                              │
//	                              names of interfaces, texts of rules (links.go, rules.go)
//
// A Tracer (trace.go) adds a table of its own, whose rules set `meta nftrace` on the packets that match the Filter. The
// table changes no verdict, and the tables of others stay as they are. For each rule that a marked packet matches, the
// kernel sends an event. The Tracer collects the events of a packet until no more come, and returns the packet.
//
// The package knows the agent's table by its name and the text of its common rules. It knows nothing of policies: package
// internal/tracing explains the packets.
package trace
