// Package agent wires the parts of the agent together and runs them: one call of Run is one agent. It knows no command
// line.
//
//	Config ─► Run ─┬─► informers, sandbox ─► cache ─► reconciler ─► engine      (Pipeline)
//	               ├─► metrics, health                                          observe the stages
//	               ├─► Events, reports of shortfalls
//	               └─► traces that annotations ask for, the node's taint
package agent
