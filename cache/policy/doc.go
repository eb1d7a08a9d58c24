// Package policy compiles a MultiNetworkPolicy from the bytes of the API into immutable values.
//
//	Object ──Compile──► Policy ─► Section (ingress, egress) ─► Rule ─► Group (peers), ports
//	                                        │
//	                                        └──Build──► engine.Chain, with the names of its sets
//
// Compile is pure: it needs no lock, reads no other object, and costs O(n log n) time and O(n) memory for a policy of size n.
//
// Compile never fails, because a policy that does not isolate its pods would open them. It decodes each field separately. A
// field that cannot be decoded, is invalid or exceeds a limit allows nothing and becomes a Problem. The rest of the policy
// holds, and the policy still isolates its pods.
//
// The results are immutable and may be shared between goroutines.
package policy
