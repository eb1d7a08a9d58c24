// Package engine makes the nf_tables table of a network namespace equal to a Ruleset. It knows nothing of Kubernetes and
// starts no program.
//
//	Ruleset (wanted) ──┐
//	                   ├─► plan ─► steps ─► batch ─► nfnl.Conn ─► kernel
//	table (have) ──────┘                                │
//	     ▲                                              │
//	     ├── acknowledged: the plan is in force ◄───────┤
//	     └── read-back: after Open, after an error ◄────┘
//
// An Engine (engine.go) keeps the table that the kernel acknowledged last, and sends the difference to the wanted Ruleset:
//
//   - ruleset.go: Ruleset, Set and Chain, plain data. names.go and direction.go: the names of chains and sets.
//   - plan.go, plan_rules.go, align.go and delta.go: the difference between two rulesets.
//   - cost.go: the kernel time of a plan. steps.go, versions.go, reach.go and lockdown.go: safe tables on the way to a Ruleset
//     for which the kernel needs too long. memory.go: the kernel memory of a Ruleset.
//   - layout.go: the keys of sets. encode.go, encode_sets.go and encode_delta.go: a plan as an atomic batch. exchange.go: its way to the kernel, and the handles of new rules.
//   - readback.go, readback_rules.go and readback_sets.go: the kernel's table as a Ruleset. changed.go and counts.go: changes by
//     other processes, and counters.
//   - render.go and render_json.go: a Ruleset as nft prints it.
//   - namespace.go: the tables of both families in a network namespace.
//   - probe.go: the features of the kernel, and a trial of a Ruleset.
//
// Outside Linux, the package has only rulesets, plans and their text: the kubectl plugin prints rulesets on any machine.
//
// Package nfnl owns the socket. Package trace follows packets through the rules, and package conntrack tells the kernel which
// side opened the connections of a pod.
package engine
