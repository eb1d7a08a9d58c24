// Package bytecode has the kernel expressions that the statements of package expr consist of, under names that exist on each
// operating system.
//
//	on Linux           aliases of google/nftables/expr ─► expr.Marshal ─► kernel
//	on other systems   structs with the same fields    ─► expr.Evaluate and expr.Summarize only
//
// google/nftables/expr does not compile outside Linux, and there is no kernel there that could run the bytecode. But the kubectl plugin
// explains verdicts on any machine, and it evaluates the bytecode for that. A test compares the structs with google/nftables/expr.
package bytecode
