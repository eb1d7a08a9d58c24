package engine

import (
	"slices"
	"time"
)

// TracedPacket is the way of one packet through the rules of a network namespace. A connection that the pod has with
// itself is two packets, one out and one in.
type TracedPacket struct {
	Time    time.Time // when it was told
	In, Out string    // interfaces; one of them is empty
	Packet  Packet
	Steps   []TraceStep
}

// TraceStep is a rule that matched, or the policy of a base chain. Rules that do not match are not told.
type TraceStep struct {
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
func (s TraceStep) IsOfAgent() bool { return s.Family == "inet" && s.Table == TableName }

// story is a way that may go on.
type story struct {
	id     uint32
	packet TracedPacket
	last   time.Time
}

// stories puts events together by packet.
type stories struct {
	open    map[uint32]*story
	waiting []*story // in the order in which they began
}

// begin starts a way. What was known under the ID is of an earlier packet.
func (s *stories) begin(id uint32, p TracedPacket) {
	if s.open == nil {
		s.open = map[uint32]*story{}
	}
	n := &story{id: id, packet: p, last: p.Time}
	s.open[id] = n
	s.waiting = append(s.waiting, n)
}

func (s *stories) has(id uint32) bool { return s.open[id] != nil }

func (s *stories) add(id uint32, step TraceStep, now time.Time) {
	if n := s.open[id]; n != nil {
		n.packet.Steps = append(n.packet.Steps, step)
		n.last = now
	}
}

// settled takes the oldest way, if nothing was said of it since then.
func (s *stories) settled(since time.Time) (TracedPacket, bool) {
	if len(s.waiting) == 0 || s.waiting[0].last.After(since) {
		return TracedPacket{}, false
	}
	first := s.waiting[0]
	s.waiting = slices.Delete(s.waiting, 0, 1)
	if s.open[first.id] == first {
		delete(s.open, first.id)
	}
	return first.packet, true
}
