// Package model gives tests of the cache random worlds, and compares the tables in them with the answers of package oracle.
//
//	NewPod, NewPolicy, … ─┐
//	World (random) ───────┴─► objects ─┬─► Oracle.Passes(pod, packet) ──┐
//	                                   │                                ├─► equal?
//	                                   └─► cache ─► Ruleset ─► Table ───┘
//	                                                          Passes(packet)
//
// The Oracle is that of package oracle. A Table evaluates a ruleset for packets, as the kernel does. A test
// compares the two.
package model
