// Package expr is the vocabulary of the rules that the agent writes. Each function returns a Statement: the text of an nft
// statement, and the kernel expressions that stock nft makes of the text.
//
//	SourceIn, Established, Drop, … ─► Statement ─► Marshal ───► bytecode of a rule ─► kernel
//	                                     │                                             │
//	                                     ├─► Evaluate: outcome for a packet            ▼
//	                                     └─► Summarize: lookups, verdict    Canonical ◄── dump of a rule
//
// Statements are made for tables of family inet. TableFamily translates them for a table of family bridge.
//
// Registers, offsets and byte order live in this package and nowhere else. Canonical turns bytecode into a text that is equal
// for equivalent rules, so the agent finds its own rules in a dump.
//
// A match reads a field of the packet into register 1 and compares it with a value or looks it up in a set. If the match fails,
// the kernel skips the rest of the rule. Values in bytecode are in network byte order, except marks and connection states, which
// the kernel loads in host byte order.
package expr
