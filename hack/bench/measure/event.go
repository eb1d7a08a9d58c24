package main

import "time"

// event leads from one state to another.
type event struct {
	name     string
	from, to state
	reopen   bool // sockets are closed before, and opened in it: the start of an agent
	alone    bool // comes after a rest
}

var (
	firstApply      = event{name: "first apply", from: absent, to: base, reopen: true}
	addPeer         = event{name: "add a peer", from: base, to: withPeer}
	removePeer      = event{name: "remove a peer", from: withPeer, to: base}
	addAlone        = event{name: "add a peer, alone", from: base, to: withPeer, alone: true}
	removeAlone     = event{name: "remove a peer, alone", from: withPeer, to: base, alone: true}
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
	{addAlone, removeAlone},
	{relabelIn, relabelOut},
	{addPolicy, removePolicy},
	{restartNoChange},
}

// pause lets the kernel end what it has put off: it waits until all cores have passed by, and then frees what the event
// before deleted, on the core that deleted it. One after another, events run into that at random. The core is awake
// again when it is over.
func pause() {
	const grace, wake = 8 * time.Millisecond, 100 * time.Microsecond
	time.Sleep(grace)
	for end := time.Now().Add(wake); time.Now().Before(end); {
		continue
	}
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
