package main

import "time"

// event is a change from a state to another state.
type event struct {
	name string
	// from is the state that prepare brings about; to is the state when run returns
	from, to state
	reopen   bool // sockets are closed before the event and opened in it, as at the start of an agent
	alone    bool // comes after a rest
}

// The events. A cycle is a pair of events that undo each other where possible, so that the next run needs no
// preparation.
var (
	// firstApply: the pods have no table; an engine opens and creates it.
	firstApply = event{name: "first apply", from: absent, to: base, reopen: true}
	// addPeer: a pod joins the group that the policies allow. It changes an element of a set.
	addPeer     = event{name: "add a peer", from: base, to: withPeer}
	removePeer  = event{name: "remove a peer", from: withPeer, to: base}
	addAlone    = event{name: "add a peer, alone", from: base, to: withPeer, alone: true}
	removeAlone = event{name: "remove a peer, alone", from: withPeer, to: base, alone: true}
	// relabelIn: a namespace of 1,000 pods gets the label that the policies allow, so 1,000 elements come at once.
	relabelIn  = event{name: "relabel a namespace in", from: base, to: withNamespace}
	relabelOut = event{name: "relabel a namespace out", from: withNamespace, to: base}
	// addPolicy: a policy with its own group of 100 peers. It brings a set, a chain and a rule.
	addPolicy    = event{name: "add a policy", from: base, to: withPolicy}
	removePolicy = event{name: "remove a policy", from: withPolicy, to: base}
	// restartNoChange: an agent starts, reads the tables that its predecessor left, and finds them right.
	restartNoChange = event{name: "restart, nothing to do", from: base, to: base, reopen: true}
)

// cycles are the events in the order of measurement. The events of a cycle take turns.
var cycles = [][]event{
	{firstApply},
	{addPeer, removePeer},
	{addAlone, removeAlone},
	{relabelIn, relabelOut},
	{addPolicy, removePolicy},
	{restartNoChange},
}

// pause waits until the kernel has finished deferred work: after an RCU grace period it frees the objects that the previous event
// deleted, on the same core. Without a pause, events collide with this work at random. At the end the core is awake.
// The pause is outside the measured time. It makes an event slower in another way: other programs use the CPU caches
// meanwhile.
func pause() {
	const grace, wake = 8 * time.Millisecond, 100 * time.Microsecond
	time.Sleep(grace)
	// The busy wait keeps the wake-up of the core out of the measured time.
	for end := time.Now().Add(wake); time.Now().Before(end); {
		continue
	}
}

// way brings the tables of all local pods from a state to another state: the floor, this agent or another implementation.
type way interface {
	// name is the column in the tables.
	name() string

	// prepare does all unmeasured work and brings the tables to the start state of the event.
	prepare(e event) error

	// run carries out the event. Its time is measured.
	run(e event) error

	// sent returns the number of bytes sent to the kernel, or to nft, so far.
	sent() uint64

	close() error
}
