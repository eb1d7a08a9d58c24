// Package sets holds the pure values for the agent's nftables sets: canonical
// sets of addresses ([Addrs]), of ports ([Ports]), of numbers ([Numbers]) and
// of address, protocol and port together ([Endpoints]), and the difference
// between two versions of a set ([Delta]).
//
//	ranges ─► NewAddrs ─► Addrs ─► Insert, Remove, Union ─► next version
//	                        │                                  │
//	                        └──────────► DiffAddrs ◄───────────┘
//	                                         └─► Delta: ranges to delete and to add
//
// Every value is immutable. An operation returns a new value and leaves its
// operands as they were, so a value may be kept, shared between goroutines and
// compared with a later version without a lock or a copy. The zero value of
// every set is the empty set, ready for use.
//
// Every value is canonical: ranges that overlap or touch are merged, so equal
// content has the same form, regardless of the operations that produced it.
//
// [Addrs] and [Endpoints] are persistent trees. A version shares all nodes with
// the version from which it was made, except the path to the change. So a
// change among many thousands of elements costs a few microseconds, and so does
// the difference between the two versions ([DiffAddrs], [DiffHosts],
// [DiffEndpoints]).
// [Ports] and [Numbers] are sorted slices, because a rule has few of them.
//
// Invalid input (an invalid address, a range that ends before it starts) has no
// effect: it adds nothing to a set and removes nothing from it. The exception is
// Splice, which needs a valid address.
package sets
