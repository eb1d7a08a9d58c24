package expr

import (
	"encoding/binary"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// TableFamily is the family of a table: it decides which packets the table judges. The zero value is Inet. Statements are made
// for Inet. Marshal and Text translate them for the family of the table. Replace must first replace the statements that the
// family does not have.
type TableFamily uint8

// The families of tables. A table of family Bridge judges the frames that pass a bridge in the namespace, such as the bridge
// between the interface of a pod and its virtual machine. A table of family Inet judges all other packets.
const (
	Inet TableFamily = iota
	Bridge
)

// TableFamilies lists both families.
var TableFamilies = [...]TableFamily{Inet, Bridge}

// String returns the name of the family in nft.
func (f TableFamily) String() string {
	if f == Bridge {
		return "bridge"
	}
	return "inet"
}

// Number returns NFPROTO_INET or NFPROTO_BRIDGE.
func (f TableFamily) Number() byte {
	if f == Bridge {
		return uapi.NFPROTO_BRIDGE
	}
	return uapi.NFPROTO_INET
}

// Text returns the statement as nft prints it in a table of the family.
func (f TableFamily) Text(s Statement) string { return f.translate(s).Text }

// Replace returns the statements of a rule with a replacement for each statement that the family does not have: a frame in a
// bridge cannot be rejected at every hook, so it is dropped.
func (f TableFamily) Replace(rule []Statement) []Statement {
	if f == Inet {
		return rule
	}
	// Statements are shared, so the list is cloned before a statement of it is replaced.
	rule = slices.Clone(rule)
	for i := range rule {
		if slices.ContainsFunc(rule[i].Exprs, func(e bytecode.Any) bool { _, is := e.(*bytecode.Reject); return is }) {
			rule[i] = Drop()
		}
	}
	return rule
}

// translate returns the equivalent of a statement in a table of the family. In family bridge, `meta nfproto` is no family of
// IP, so the protocol of the frame tells the family. Different statements have different translations.
func (f TableFamily) translate(s Statement) Statement {
	if f == Inet {
		return s
	}
	// A statement is rebuilt from its expressions, since a check of the family can be in the middle of it.
	out := Statement{Text: s.Text, opaque: s.opaque}
	for i := 0; i < len(s.Exprs); i++ {
		family, ok := familyAt(s.Exprs, i)
		if !ok {
			out.Exprs = append(out.Exprs, s.Exprs[i])
			continue
		}
		i++ // skip both expressions of the check
		match := frameOf(family)
		out.Exprs = append(out.Exprs, match.Exprs...)
		// A statement that consists of the check has its text from the family too. In other statements, such as `ip
		// saddr`, nft does not print the check.
		if s.Text == IsFamily(family).Text {
			out.Text = match.Text
		}
	}
	return out
}

// familyAt returns the family that the expressions i and i+1 check. It returns false if they check something else.
func familyAt(exprs []bytecode.Any, i int) (sets.Family, bool) {
	c, ok := checkAt(exprs, i)
	if !ok || c.key != bytecode.MetaKeyNFPROTO {
		return 0, false
	}
	for _, f := range sets.Families {
		if c.value == string([]byte{familyOf(f).nfproto}) {
			return f, true
		}
	}
	return 0, false
}

// frameOf is `meta protocol ip` or `meta protocol ip6`.
func frameOf(f sets.Family) Statement { return frame(Is, familyOf(f).word, familyOf(f).etherType) }

// ARP is `meta protocol arp`: the frame is of the Address Resolution Protocol.
func ARP() Statement { return frame(Is, "arp", uapi.ETH_P_ARP) }

// NotIP is `meta protocol != ip meta protocol != ip6`: the frame holds no IP packet. The kernel reads the protocol behind a
// single VLAN tag. So a frame with two tags counts as a frame without an IP packet.
func NotIP() []Statement {
	var list []Statement
	for _, f := range sets.Families {
		list = append(list, frame(IsNot, familyOf(f).word, familyOf(f).etherType))
	}
	return list
}

// frame compares the protocol of a frame (EtherType), which the kernel loads in network byte order.
func frame(op Op, name string, protocol uint16) Statement {
	f := field{words: "meta protocol", load: []bytecode.Any{&bytecode.Meta{Key: bytecode.MetaKeyPROTOCOL, Register: reg}}, size: 2}
	return f.equal(op, name, slices.Clip(binary.BigEndian.AppendUint16(nil, protocol)))
}
