// Command reference writes the reference pages of the documentation from the code.
//
//	go run ./hack/reference
//
//	internal/command: the tree of commands ────────────────────► flags ───────┐
//	source: the packages ─┬► constants of type policy.Reason ──► events ──────┼─► docs/reference-*.md
//	of the agent, typed   └► keys of Annotations of objects ───► annotations ─┘
//
// A reason or an annotation that the code uses and no table describes is an error, so the pages cannot miss it. The metrics are in
// docs/metrics.md, which a test of internal/agent compares with the code.
package main
