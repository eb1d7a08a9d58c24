// Package command is the command line. It reads flags, calls the package that does the work, and prints the result.
//
//	multi-networkpolicy-nftables          ─► agent.Run
//	├── cleanup                           ─► sandbox.List, engine
//	├── demo                              ─► demo.Run
//	├── explain, explain diff, render     ─► informers.Snapshot ─► cache/explain
//	├── trace                             ─► tracing
//	└── version
package command
