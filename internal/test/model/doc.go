// Package model gives tests a second implementation of the semantics of policies, which shares no code with the product.
//
//	NewPod, NewPolicy, … ─┐
//	World (random) ───────┴─► objects ─┬─► Oracle.Passes(pod, packet) ──┐
//	                                   │                                ├─► equal?
//	                                   └─► cache ─► Ruleset ─► Table ───┘
//	                                                          Passes(packet)
//
// An Oracle judges packets by the objects of the API. A Table evaluates a ruleset for packets, as the kernel does. A test
// compares the two.
package model
