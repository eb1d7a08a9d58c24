// Package model helps tests to tell the meaning of policies without the code under test.
//
//	NewPod, NewPolicy, … ─┐
//	World (random) ───────┴─► objects ─┬─► Oracle.Passes(pod, packet) ──┐
//	                                   │                                ├─► equal?
//	                                   └─► cache ─► Ruleset ─► Table ───┘
//	                                                          Passes(packet)
//
// An Oracle judges packets by the words of the API. A Table walks packets through a ruleset, as the kernel does.
package model
