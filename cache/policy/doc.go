// Package policy compiles a MultiNetworkPolicy from the bytes of the API into immutable values.
//
//	Object ──Compile──► Policy ─► Section (ingress, egress) ─► Rule ─► Group (peers), ports
//	                                        │
//	                                        └──Build──► engine.Chain, with the names of its sets
//
// Compile is pure: it needs no lock, reads no other object and costs O(n log n) time and O(n) memory in the size n of
// the policy. It decodes each field by itself. A field that cannot be decoded, is invalid or exceeds a limit allows
// nothing and becomes a Problem; the rest of the policy holds, and the policy still isolates its pods.
package policy
