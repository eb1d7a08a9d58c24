// Package sets holds the pure values that the agent's nftables sets are made
// of: canonical sets of addresses ([Addrs]), of ports ([Ports]) and of
// address, protocol and port together ([Endpoints]), and the difference
// between two versions of one ([Delta]).
//
// Every value is immutable. An operation returns a new value and leaves its
// operands as they were, so a value may be kept, shared between goroutines and
// compared with a later version without a lock or a copy. The zero value of
// every set is the empty set, ready for use.
//
// Every value is canonical: ranges that overlap or touch are one range, so
// equal content has one form whatever operations led to it.
//
// [Addrs] and [Endpoints] are persistent trees. A version derived from another
// shares all of it but the path to what changed, so that one change among many
// thousands of elements costs a few microseconds, and so does finding out what
// changed ([DiffAddrs], [DiffEndpoints]). [Ports] are a handful a rule, and are
// a sorted slice.
//
// Input that makes no sense (an invalid address, a range that ends before it
// starts) contributes nothing: it adds nothing to a set, and takes nothing from
// one. Nothing in this package panics on it.
package sets
