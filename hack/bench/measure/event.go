package main

// event leads from one state to another.
type event struct {
	name     string
	from, to state
	reopen   bool // sockets are closed before, and opened in it: the start of an agent
}

var (
	firstApply      = event{name: "first apply", from: absent, to: base, reopen: true}
	addPeer         = event{name: "add a peer", from: base, to: withPeer}
	removePeer      = event{name: "remove a peer", from: withPeer, to: base}
	relabelIn       = event{name: "relabel a namespace in", from: base, to: withNamespace}
	relabelOut      = event{name: "relabel a namespace out", from: withNamespace, to: base}
	addPolicy       = event{name: "add a policy", from: base, to: withPolicy}
	removePolicy    = event{name: "remove a policy", from: withPolicy, to: base}
	restartNoChange = event{name: "restart, nothing to do", from: base, to: base, reopen: true}
)

// cycles are the events in the order in which they are measured; those of one cycle take turns.
var cycles = [][]event{
	{firstApply},
	{addPeer, removePeer},
	{relabelIn, relabelOut},
	{addPolicy, removePolicy},
	{restartNoChange},
}

// way is one way to bring the tables of all local pods from one state to another.
type way interface {
	name() string

	// prepare makes all that run shall not be charged with, and brings the tables to the state that the event starts from.
	prepare(e event) error

	// run is what is measured.
	run(e event) error

	// sent counts the bytes that were handed over to the kernel, or to nft, so far.
	sent() uint64

	close() error
}
