package expr

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Packet is a packet that starts a connection or belongs to no connection, for Evaluate. Its source port and its mark
// are unknown.
type Packet struct {
	// Family must be the family of the addresses, also if both addresses are unknown.
	Family sets.Family
	// Source and Destination are invalid (the zero value) if they are unknown. Matches on them make the outcome unsure.
	Source, Destination netip.Addr
	Input, Output       string // names of the interfaces; empty if the hook has no such interface
	Protocol            uint8
	DestinationPort     uint16 // of TCP, UDP and SCTP
	ICMPType            uint8  // of ICMP and ICMPv6
	State               State
}

// Outcome is the effect of a rule on a packet. The zero value means that the rule does not match, or has no verdict.
type Outcome struct {
	Verdict string // "accept", "drop", "reject" or "return"; empty: the next rule decides
	Unsure  bool   // the verdict depends on an unknown property of the packet, or on a limit
}

// Lookup finds a set by name. It returns the length of the set's keys in bytes, and a function that reports whether the set
// contains a key in network byte order. For an unknown set it returns a size of 0.
type Lookup func(set string) (size int, contains func(key []byte) bool)

// Evaluate runs the bytecode of a rule on a packet, as the kernel does (net/netfilter/nf_tables_core.c, nft_do_chain). It is
// used to explain verdicts without sending a packet. It supports the expressions of custom rules; other expressions, such as a
// jump, are an error.
func Evaluate(rule []Statement, p Packet, sets Lookup) (Outcome, error) {
	m := machine{packet: p, sets: sets}
	for _, s := range rule {
		for _, e := range s.Exprs {
			if err := m.step(e); err != nil {
				return Outcome{}, fmt.Errorf("statement %q: %w", s.Text, err)
			}
			// A failed match ends a rule as NFT_BREAK does. A verdict ends it too: nothing behind a verdict runs.
			switch {
			case m.mismatch:
				return Outcome{}, nil
			case m.verdict != "":
				return Outcome{Verdict: m.verdict, Unsure: m.unsure}, nil
			}
		}
	}
	return Outcome{}, nil
}

// machine is the state of the evaluation of a rule: struct nft_regs of the kernel, with a flag for each byte that depends on
// an unknown property of the packet.
type machine struct {
	// bytes are the registers as plain memory. Two registers of different width share bytes, as in the kernel.
	packet Packet
	sets   Lookup
	bytes  [5 * wideRegister]byte // first NFT_REG_VERDICT, then NFT_REG_1 to NFT_REG_4
	// unknown has a flag for each byte in bytes. A load clears or sets the flags of the bytes that it writes.
	unknown  [5 * wideRegister]bool
	mismatch bool // a match failed, so the rule has no effect (NFT_BREAK)
	unsure   bool // a match on unknown bytes was taken as passed, or a limit was met
	verdict  string
}

// wideRegister is the size of a 16-byte register (NFT_REG_1) in bytes.
const wideRegister = 4 * slotSize

// start returns the offset of a register in machine.bytes. It accepts both names of a register (see slot).
func start(register uint32) int {
	if register >= uapi.NFT_REG32_00 {
		return wideRegister + int(register-uapi.NFT_REG32_00)*slotSize
	}
	return int(register) * wideRegister
}

// step runs an expression. Counters and logs have no effect on the verdict.
func (m *machine) step(e bytecode.Any) error {
	switch e := e.(type) {
	case *bytecode.Meta:
		return m.meta(e)
	case *bytecode.Payload:
		m.payload(e)
	case *bytecode.Ct:
		return m.conntrack(e)
	// The agent's rules swap only marks, which are 4 bytes long.
	case *bytecode.Byteorder:
		slices.Reverse(m.bytes[start(e.SourceRegister):][:e.Len])
	case *bytecode.Bitwise:
		r := m.bytes[start(e.DestRegister):]
		// The kernel computes dst = (src & mask) ^ xor for each byte (nft_bitwise.c).
		for i, mask := range e.Mask {
			r[i] = m.bytes[start(e.SourceRegister)+i]&mask ^ e.Xor[i]
		}
	case *bytecode.Cmp:
		m.match(e.Register, len(e.Data), func(b []byte) bool { return compares(bytes.Compare(b, e.Data), e.Op) })
	case *bytecode.Range:
		m.match(e.Register, len(e.FromData), func(b []byte) bool {
			within := bytes.Compare(b, e.FromData) >= 0 && bytes.Compare(b, e.ToData) <= 0
			return within == (e.Op == bytecode.CmpOpEq)
		})
	case *bytecode.Lookup:
		size, contains := m.sets(e.SetName)
		if size == 0 {
			return fmt.Errorf("there is no set %s", e.SetName)
		}
		m.match(e.SourceRegister, size, func(b []byte) bool { return contains(b) != e.Invert })
	// Whether the packet is within the rate depends on other packets.
	case *bytecode.Limit:
		m.unsure = true
	case *bytecode.Counter, *bytecode.Log:
	// The explanation sends no packet, so it neither counts nor logs.
	case *bytecode.Reject:
		m.verdict = "reject"
	case *bytecode.Verdict:
		return m.decide(e)
	default:
		return fmt.Errorf("%T cannot be evaluated", e)
	}
	return nil
}

// match ends the rule if a register's value does not fit. If the value is unknown, the rule goes on as if it did, and
// becomes unsure: the caller then sees the verdict that the rule may have.
func (m *machine) match(register uint32, size int, fits func(value []byte) bool) {
	from := start(register)
	if slices.Contains(m.unknown[from:from+size], true) {
		m.unsure = true
		return
	}
	m.mismatch = m.mismatch || !fits(m.bytes[from:from+size])
}

// compares reports whether the result c of bytes.Compare satisfies the operator.
func compares(c int, op bytecode.CmpOp) bool {
	switch op {
	case bytecode.CmpOpEq:
		return c == 0
	case bytecode.CmpOpNeq:
		return c != 0
	case bytecode.CmpOpLt:
		return c < 0
	case bytecode.CmpOpLte:
		return c <= 0
	case bytecode.CmpOpGt:
		return c > 0
	}
	return c >= 0
}

// load stores a known value in a register.
func (m *machine) load(register uint32, value []byte) {
	from := start(register)
	copy(m.bytes[from:], value)
	for i := range value {
		m.unknown[from+i] = false
	}
}

// loadUnknown marks the bytes of a register as unknown: matches on them make the rule unsure.
func (m *machine) loadUnknown(register uint32, size int) {
	for i := range size {
		m.unknown[start(register)+i] = true
	}
}

// meta loads a property of the packet that is not in its headers. The mark is unknown.
func (m *machine) meta(e *bytecode.Meta) error {
	p := m.packet
	// The keys are the keys of custom rules, see package custom.
	switch e.Key {
	case bytecode.MetaKeyNFPROTO:
		m.load(e.Register, []byte{familyOf(p.Family).nfproto})
	case bytecode.MetaKeyL4PROTO:
		m.load(e.Register, []byte{p.Protocol})
	case bytecode.MetaKeyIIFNAME:
		m.load(e.Register, paddedName(p.Input))
	case bytecode.MetaKeyOIFNAME:
		m.load(e.Register, paddedName(p.Output))
	case bytecode.MetaKeyMARK:
		m.loadUnknown(e.Register, slotSize)
	default:
		return fmt.Errorf("meta key %d cannot be evaluated", e.Key)
	}
	return nil
}

// conntrack loads a property of the packet's connection. The packet is the first of the connection, so its direction is original.
func (m *machine) conntrack(e *bytecode.Ct) error {
	switch e.Key {
	case bytecode.CtKeySTATE:
		m.load(e.Register, binaryutil.NativeEndian.PutUint32(uint32(m.packet.State)))
	case bytecode.CtKeyDIRECTION:
		m.load(e.Register, []byte{directionOriginal})
	case bytecode.CtKeyPROTODST:
		m.loadUnknown(e.Register, 2)
	default:
		return fmt.Errorf("conntrack key %d cannot be evaluated", e.Key)
	}
	return nil
}

// payload loads bytes of the headers. Only addresses, destination ports and ICMP types are known.
func (m *machine) payload(e *bytecode.Payload) {
	// Custom rules read no field of the network header but the addresses.
	p, fam := m.packet, familyOf(m.packet.Family)
	size := int(e.Len)
	addr := p.Source
	// A match of a prefix loads fewer bytes than the whole address. The bytes behind them are loaded too but never
	// compared.
	if e.Offset == fam.dest {
		addr = p.Destination
	}
	switch {
	case e.Base == bytecode.PayloadBaseNetworkHeader && addr.IsValid():
		m.load(e.DestRegister, addr.AsSlice())
	case e.Base == bytecode.PayloadBaseTransportHeader && e.Offset == destinationPort && size == 2 && HasPorts(p.Protocol):
		m.load(e.DestRegister, TypeInetService.Append(nil, uint32(p.DestinationPort)))
	case e.Base == bytecode.PayloadBaseTransportHeader && e.Offset == 0 && size == 1 && p.isICMP():
		m.load(e.DestRegister, []byte{p.ICMPType})
	default:
		m.loadUnknown(e.DestRegister, size)
	}
}

func (p Packet) isICMP() bool {
	return p.Protocol == uapi.IPPROTO_ICMP || p.Protocol == uapi.IPPROTO_ICMPV6
}

// decide ends the rule with a verdict. Jumps are not supported: custom rules have none.
func (m *machine) decide(e *bytecode.Verdict) error {
	switch e.Kind {
	case bytecode.VerdictAccept:
		m.verdict = "accept"
	case bytecode.VerdictDrop:
		m.verdict = "drop"
	case bytecode.VerdictReturn:
		m.verdict = "return"
	default:
		return fmt.Errorf("verdict %d cannot be evaluated", e.Kind)
	}
	return nil
}
