package trace

import (
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/packet"
)

// Packet is the path of a packet through the rules of a network namespace. If a pod connects to itself, each packet
// counts twice, on its way out and on its way in.
type Packet struct {
	Time    time.Time // when the Tracer read the first event; the event itself has no time
	In, Out string    // names of the interfaces; In is empty for a packet that the pod sends, Out otherwise
	Headers packet.Headers
	// Steps are in the order in which the kernel evaluated the rules, over all hooks and tables, those of other
	// programs included. The last step of a dropped packet has the verdict drop.
	Steps []Step
}

// Step is a rule that the packet matched, or the policy of a base chain. The kernel reports no rules without a match.
type Step struct {
	Family, Table, Chain string
	Handle               uint64 // of the rule; 0 for a policy
	IsPolicy             bool
	// Verdict is the word that nft prints: accept, drop, continue, jump, goto, return, queue or stolen.
	Verdict string
	Target  string   // the chain of a jump or goto
	Comment string   // of the rule
	Rule    string   // the rule as nft prints it, if each table of the agent has such a rule; else empty
	Sets    []string // names of the sets that the rule looks up
}

// IsOfAgent reports whether the step is in a table of the agent.
func (s Step) IsOfAgent() bool {
	return (s.Family == engine.Inet.String() || s.IsInBridge()) && s.Table == engine.TableName
}

// IsInBridge reports whether the step is in a table of family bridge.
func (s Step) IsInBridge() bool { return s.Family == engine.Bridge.String() }

// pendingPacket is a packet whose next events may still come.
type pendingPacket struct {
	id     uint32
	packet Packet
	last   time.Time // of the last event
}

// assembler puts events together by packet. The kernel gives all events of a packet the same ID, but the ID is a hash
// that a later packet may have again.
type assembler struct {
	// open has the last packet of each ID. A packet in waiting whose ID a later packet took over is not in open.
	open map[uint32]*pendingPacket
	// waiting has the packets in the order of their first events. settled removes them from the front only, so a packet
	// whose events still come holds back later packets, and the output keeps the order.
	waiting []*pendingPacket
}

// begin starts a packet. Later events with this ID belong to it, not to an earlier packet with the same ID.
func (a *assembler) begin(id uint32, p Packet) {
	if a.open == nil {
		a.open = map[uint32]*pendingPacket{}
	}
	n := &pendingPacket{id: id, packet: p, last: p.Time}
	a.open[id] = n
	a.waiting = append(a.waiting, n)
}

// has reports whether a packet with the ID is pending.
func (a *assembler) has(id uint32) bool { return a.open[id] != nil }

// add adds a step to the last packet with the ID, if it knows such a packet.
func (a *assembler) add(id uint32, step Step, now time.Time) {
	if n := a.open[id]; n != nil {
		n.packet.Steps = append(n.packet.Steps, step)
		n.last = now
	}
}

// settled removes and returns the oldest packet if it has had no event after the time since. The kernel announces no
// last event of a packet, so silence is the only sign that a packet is complete.
func (a *assembler) settled(since time.Time) (Packet, bool) {
	if len(a.waiting) == 0 || a.waiting[0].last.After(since) {
		return Packet{}, false
	}
	first := a.waiting[0]
	a.waiting = slices.Delete(a.waiting, 0, 1)
	if a.open[first.id] == first { // else the ID belongs to a later packet now
		delete(a.open, first.id)
	}
	return first.packet, true
}
