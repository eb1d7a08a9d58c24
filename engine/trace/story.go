package trace

import (
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Packet is the way of one packet through the rules of a network namespace. A connection that the pod has with
// itself is two packets, one out and one in.
type Packet struct {
	Time    time.Time // when it was told
	In, Out string    // interfaces; one of them is empty
	Headers Headers
	Steps   []Step
}

// Step is a rule that matched, or the policy of a base chain. Rules that do not match are not told.
type Step struct {
	Family, Table, Chain string
	Handle               uint64 // of the rule; 0 for a policy
	IsPolicy             bool
	Verdict              string // accept, drop, continue, jump, goto, return, queue or stolen
	Target               string // chain of a jump or goto
	Comment              string
	Rule                 string   // as nft prints it, if it is one that every table has
	Sets                 []string // that the rule looks into
}

// IsOfAgent says whether the step is in the agent's own table.
func (s Step) IsOfAgent() bool { return s.Family == "inet" && s.Table == engine.TableName }

// story is a way that may go on.
type story struct {
	id     uint32
	packet Packet
	last   time.Time
}

// stories puts events together by packet.
type stories struct {
	open    map[uint32]*story
	waiting []*story // in the order in which they began
}

// begin starts a way. What was known under the ID is of an earlier packet.
func (s *stories) begin(id uint32, p Packet) {
	if s.open == nil {
		s.open = map[uint32]*story{}
	}
	n := &story{id: id, packet: p, last: p.Time}
	s.open[id] = n
	s.waiting = append(s.waiting, n)
}

func (s *stories) has(id uint32) bool { return s.open[id] != nil }

func (s *stories) add(id uint32, step Step, now time.Time) {
	if n := s.open[id]; n != nil {
		n.packet.Steps = append(n.packet.Steps, step)
		n.last = now
	}
}

// settled takes the oldest way, if nothing was said of it since then.
func (s *stories) settled(since time.Time) (Packet, bool) {
	if len(s.waiting) == 0 || s.waiting[0].last.After(since) {
		return Packet{}, false
	}
	first := s.waiting[0]
	s.waiting = slices.Delete(s.waiting, 0, 1)
	if s.open[first.id] == first {
		delete(s.open, first.id)
	}
	return first.packet, true
}
