// Package command is the command line. It reads flags, calls the package that does the work, and prints the result. A Program is
// the agent's binary or the kubectl plugin, which has the commands for any machine only.
//
//	multi-networkpolicy-nftables          ─► agent.Run
//	├── cleanup                           ─► sandbox.List, engine
//	├── demo                              ─► demo.Run
//	├── explain, explain diff|matrix      ─┬► informers.Input, or the API server ─► informers.Snapshot ─► cache/explain
//	├── render                            ─┘
//	├── trace                             ─► tracing
//	└── version
package command
