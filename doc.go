// Command multi-networkpolicy-nftables enforces MultiNetworkPolicy on the pods of a node, with nftables inside each
// pod's network namespace.
//
//	os.Args ─► internal/command ─┬─► no subcommand: internal/agent ─► tables in the pods
//	                             ├─► cleanup, demo, explain, render, trace, version ─► stdout
//	                             └─► exit code
//
// docs/architecture.md describes the packages.
package main
