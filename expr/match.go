package expr

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// IIFName is `iifname "NAME"`: the packet came in on the interface. Names longer than 15 bytes match nothing.
func IIFName(name string) Statement { return ifname("iifname", expr.MetaKeyIIFNAME, name) }

// OIFName is `oifname "NAME"`: the packet goes out on the interface.
func OIFName(name string) Statement { return ifname("oifname", expr.MetaKeyOIFNAME, name) }

func ifname(word string, key expr.MetaKey, name string) Statement {
	// All 16 bytes are compared, so that "net1" is not also "net10"; the last one is always NUL in the kernel.
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return Statement{
		Text: word + ` "` + name + `"`,
		Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: reg},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: padded},
		},
	}
}

// family is what differs between the two IP headers: RFC 791 section 3.1 and RFC 8200 section 3.
type family struct {
	word           string
	nfproto        byte
	source, dest   uint32 // offsets in the network header, bytes
	addrLen, slots int    // bytes, and 4-byte registers
}

func familyOf(f sets.Family) family {
	if f == sets.V4 {
		return family{word: "ip", nfproto: unix.NFPROTO_IPV4, source: 12, dest: 16, addrLen: 4, slots: 1}
	}
	return family{word: "ip6", nfproto: unix.NFPROTO_IPV6, source: 8, dest: 24, addrLen: 16, slots: 4}
}

// isFamily keeps other packets from the rule. Without it, nft prints the payload that follows as raw `@nh,96,32`.
func (f family) isFamily() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{f.nfproto}},
	}
}

func (f family) load(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(f.addrLen)}
}

// SourceIn is `ip saddr @SET` or `ip6 saddr @SET`; packets of the other family do not match.
func SourceIn(f sets.Family, set string) Statement {
	fam := familyOf(f)
	return addressIn(fam, fam.word+" saddr", fam.source, set)
}

// DestinationIn is `ip daddr @SET` or `ip6 daddr @SET`; packets of the other family do not match.
func DestinationIn(f sets.Family, set string) Statement {
	fam := familyOf(f)
	return addressIn(fam, fam.word+" daddr", fam.dest, set)
}

func addressIn(f family, words string, offset uint32, set string) Statement {
	return Statement{
		Text:  words + " @" + set,
		Exprs: append(f.isFamily(), f.load(offset), &expr.Lookup{SourceRegister: reg, SetName: set}),
	}
}

// PortIn is `th dport . meta l4proto @SET`. The port comes first, since the kernel's lookup of a concatenation with
// ranges narrows by the first field, and a protocol narrows nothing. TCP, UDP and SCTP all have the destination port
// in bytes 2 and 3 of their header (RFC 9293, 768, 9260); a packet without these bytes does not match.
func PortIn(set string) Statement {
	return Statement{
		Text: "th dport . meta l4proto @" + set,
		Exprs: []expr.Any{
			loadDestinationPort(slot(0)),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: slot(1)},
			&expr.Lookup{SourceRegister: reg, SetName: set},
		},
	}
}

// DestinationEndpointIn is `ip daddr . meta l4proto . th dport @SET`, or the same with ip6.
func DestinationEndpointIn(f sets.Family, set string) Statement {
	fam := familyOf(f)
	return Statement{
		Text: fam.word + " daddr . meta l4proto . th dport @" + set,
		Exprs: append(fam.isFamily(),
			fam.load(fam.dest),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: slot(fam.slots)},
			loadDestinationPort(slot(fam.slots+1)),
			&expr.Lookup{SourceRegister: reg, SetName: set},
		),
	}
}

func loadDestinationPort(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// Established is `ct state established,related`.
func Established() Statement {
	return Statement{
		Text: "ct state established,related",
		Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
			&expr.Bitwise{
				SourceRegister: reg, DestRegister: reg, Len: slotSize,
				Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
				Xor:  binaryutil.NativeEndian.PutUint32(0),
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)},
		},
	}
}
