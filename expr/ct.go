package expr

import (
	"math/bits"
	"strings"

	"github.com/google/nftables/binaryutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
)

// State is a set of conntrack states, as the bits that `ct state` loads. A packet is in exactly one state, so a State
// with several bits stands for "any of them".
type State uint32

// The states of a packet, as conntrack sees it (linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_info).
const (
	StateInvalid     = State(bytecode.CtStateBitINVALID)
	StateEstablished = State(bytecode.CtStateBitESTABLISHED)
	StateRelated     = State(bytecode.CtStateBitRELATED)
	StateNew         = State(bytecode.CtStateBitNEW)
	StateUntracked   = State(bytecode.CtStateBitUNTRACKED)
)

// stateNames is in the order in which nft prints them.
var stateNames = []struct {
	state State
	name  string
}{
	{StateInvalid, "invalid"}, {StateEstablished, "established"}, {StateRelated, "related"}, {StateNew, "new"},
	{StateUntracked, "untracked"},
}

// StateByName returns the state with the name that nft uses.
func StateByName(name string) (State, bool) {
	for _, s := range stateNames {
		if s.name == name {
			return s.state, true
		}
	}
	return 0, false
}

// text returns the names with commas between them, in the order of nft.
func (s State) text() string {
	var names []string
	for _, n := range stateNames {
		if s&n.state != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

// InState is `ct state established,related`: the packet is in any of the states. With IsNot it is
// `ct state ! established,related`: the packet is in none of the states. (nft compares `ct state != established,related` with
// both bits together, which is true for every packet.)
func InState(op Op, states State) Statement {
	// The kernel loads the state in host byte order.
	load := &bytecode.Ct{Key: bytecode.CtKeySTATE, Register: reg}
	bytes := binaryutil.NativeEndian.PutUint32(uint32(states))
	// A single state can be compared as a whole, which nft prints with "!=". Several states need the mask below.
	if op == IsNot && bits.OnesCount32(uint32(states)) == 1 {
		return Statement{
			Text:  "ct state != " + states.text(),
			Exprs: []bytecode.Any{load, &bytecode.Cmp{Op: bytecode.CmpOpNeq, Register: reg, Data: bytes}},
		}
	}
	// The mask keeps the bits of the states. A packet has a single bit, so the result is 0 unless the packet is in a
	// state of them.
	s := Statement{Text: "ct state " + states.text()}
	cmp := bytecode.CmpOpNeq
	if op == IsNot {
		s.Text = "ct state ! " + states.text()
		cmp = bytecode.CmpOpEq
	}
	s.Exprs = []bytecode.Any{load, keepBits(bytes), &bytecode.Cmp{Op: cmp, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)}}
	return s
}

// ReplyOfEstablished is `ct state established ct direction reply`: the packet belongs to a connection that the other side of
// the packet opened.
func ReplyOfEstablished() []Statement {
	return []Statement{InState(Is, StateEstablished), {
		Text: "ct direction reply",
		Exprs: []bytecode.Any{
			&bytecode.Ct{Key: bytecode.CtKeyDIRECTION, Register: reg},
			&bytecode.Cmp{Op: bytecode.CmpOpEq, Register: reg, Data: []byte{directionReply}},
		},
	}}
}

// loadDialedPort loads the destination port of a connection's first packet before any address translation: the port
// that the client dialed. In a reply packet, `th sport` may be the port of a translation instead.
func loadDialedPort(register uint32) bytecode.Any {
	return &bytecode.Ct{Key: bytecode.CtKeyPROTODST, Register: register, Direction: directionOriginal, OptDirection: true}
}

// The directions of a connection's packets, enum ip_conntrack_dir (linux/netfilter/nf_conntrack_tuple_common.h).
const (
	directionOriginal = 0
	directionReply    = 1
)

// Established is `ct state established,related`: the packet belongs to a known connection, or is an error message about a connection.
func Established() Statement { return InState(Is, StateEstablished|StateRelated) }
