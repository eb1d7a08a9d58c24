package expr

import (
	"math/bits"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// State is one or more states of a connection, as bits. A packet is in exactly one.
type State uint32

// The states.
const (
	StateInvalid     = State(expr.CtStateBitINVALID)
	StateEstablished = State(expr.CtStateBitESTABLISHED)
	StateRelated     = State(expr.CtStateBitRELATED)
	StateNew         = State(expr.CtStateBitNEW)
	StateUntracked   = State(expr.CtStateBitUNTRACKED)
)

// stateNames is in the order in which nft prints them.
var stateNames = []struct {
	state State
	name  string
}{
	{StateInvalid, "invalid"}, {StateEstablished, "established"}, {StateRelated, "related"}, {StateNew, "new"},
	{StateUntracked, "untracked"},
}

// StateByName is the state that nft calls so.
func StateByName(name string) (State, bool) {
	for _, s := range stateNames {
		if s.name == name {
			return s.state, true
		}
	}
	return 0, false
}

func (s State) text() string {
	var names []string
	for _, n := range stateNames {
		if s&n.state != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

// InState is `ct state established,related`, or with IsNot `ct state ! established,related`: the packet is in one of
// the states, or in none of them. (`ct state != established,related` would be true of every packet.)
func InState(op Op, states State) Statement {
	load := &expr.Ct{Key: expr.CtKeySTATE, Register: reg}
	bytes := binaryutil.NativeEndian.PutUint32(uint32(states))
	if op == IsNot && bits.OnesCount32(uint32(states)) == 1 {
		return Statement{
			Text:  "ct state != " + states.text(),
			Exprs: []expr.Any{load, &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: bytes}},
		}
	}
	s := Statement{Text: "ct state " + states.text()}
	is := expr.CmpOpNeq
	if op == IsNot {
		s.Text = "ct state ! " + states.text()
		is = expr.CmpOpEq
	}
	s.Exprs = []expr.Any{load, keepBits(bytes), &expr.Cmp{Op: is, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)}}
	return s
}

// ReplyOfEstablished is `ct state established ct direction reply`: the packet answers one of a connection that began the
// other way.
func ReplyOfEstablished() []Statement {
	return []Statement{InState(Is, StateEstablished), {
		Text: "ct direction reply",
		Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{directionReply}},
		},
	}}
}

// loadDialedPort loads the destination port of a connection's first packet, as it was before any address translation.
func loadDialedPort(register uint32) expr.Any {
	return &expr.Ct{Key: expr.CtKeyPROTODST, Register: register, Direction: directionOriginal, OptDirection: true}
}

// The directions of a connection's packets, enum ip_conntrack_dir (linux/netfilter/nf_conntrack_tuple_common.h).
const (
	directionOriginal = 0
	directionReply    = 1
)

// Established is `ct state established,related`.
func Established() Statement { return InState(Is, StateEstablished|StateRelated) }
