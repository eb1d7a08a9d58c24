package conformance

import (
	"maps"
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Event is something that happens. Exactly one field is set.
type Event struct {
	Put    oracle.Object // the object is created, or replaced by this version
	Gone   *oracle.Ref   // the object is deleted
	Settle bool          // the next event happens only when the agent has done all of its work
	Stop   bool          // the agent ends; its rules stay
	Start  bool          // another agent starts
	Open   *Expectation  // connections are opened, and stay open
	Forget bool          // all entries of connection tracking are deleted
	// An agent of an earlier installation leaves its table in the pod. The Oracle cannot judge until another agent
	// starts.
	Table *oracle.Key
}

// applyTo returns the state after the event. It does not change s.
func (e Event) applyTo(s oracle.State) oracle.State {
	next := maps.Clone(s)
	switch {
	case e.Put != nil:
		next[oracle.RefOf(e.Put)] = e.Put
	case e.Gone != nil:
		delete(next, *e.Gone)
	}
	return next
}

// Step is a burst of events, and the verdicts that hold once the agent has applied all of them.
type Step struct {
	// An optional title.
	Name   string
	Events []Event
	// The lines of a person; random steps have none. The Oracle judges every packet also without them.
	Expect []Expectation
	Quiet  bool // nothing is sent after the step
}

// Case is a sequence of steps that starts with an empty cluster.
type Case struct {
	Name string
	// The agent's flags through the whole case.
	Flags oracle.Flags
	Needs []string // the types of devices, or "sctp", that a kernel must have to play the case
	// The addresses of the outside, which exist through the whole case.
	Outsiders []Outsider
	Steps     []Step
}

// Size returns the number of events, without events that only wait. Shrinking makes it smaller.
func (c Case) Size() int {
	n := 0
	for _, s := range c.Steps {
		for _, e := range s.Events {
			if !e.Settle {
				n++
			}
		}
	}
	return n
}

// Outsider is an address on a wire that belongs to no pod.
// Policies know it by blocks only.
type Outsider struct {
	Wire string
	Addr netip.Addr
}
