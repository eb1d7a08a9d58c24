//go:build linux

package expr

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Opaque returns a statement for a rule in the kernel that the agent would not write, such as a rule that someone else put in
// its table. payload is the rule's NFTA_RULE_EXPRESSIONS, text is its Canonical. Summarize knows the sets and the verdict of an
// opaque statement; Marshal refuses it. With an error, the statement is still valid, but its summary may be incomplete.
func Opaque(payload []byte, text string) (Statement, error) {
	s := Statement{Text: "(not ours) " + text, opaque: true}
	list, err := netlink.UnmarshalAttributes(payload)
	if err != nil {
		return s, fmt.Errorf("rule expressions: %w", err)
	}
	for _, element := range list {
		name, data, err := nameAndData(element.Data)
		if err != nil {
			return s, fmt.Errorf("rule expression: %w", err)
		}
		switch name {
		case "lookup":
			l, err := parseLookup(data)
			if err != nil {
				return s, err
			}
			s.Exprs = append(s.Exprs, l)
		case "immediate":
			v, err := parseVerdict(data)
			if err != nil {
				return s, err
			}
			if v != nil {
				s.Exprs = append(s.Exprs, v)
			}
		}
	}
	return s, nil
}

// parseLookup reads the attributes of a lookup expression.
func parseLookup(data []byte) (*expr.Lookup, error) {
	attributes, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, fmt.Errorf("lookup: %w", err)
	}
	l := &expr.Lookup{}
	for _, a := range attributes {
		switch {
		case a.Type == unix.NFTA_LOOKUP_SET:
			l.SetName = text(a.Data)
		case a.Type == unix.NFTA_LOOKUP_FLAGS && len(a.Data) == 4:
			l.Invert = binary.BigEndian.Uint32(a.Data)&unix.NFT_LOOKUP_F_INV != 0
		}
	}
	return l, nil
}

// parseVerdict returns the verdict of an immediate expression, or nil if the expression loads data. The verdict is in
// two nests:
//
//	NFTA_IMMEDIATE_DATA ─► NFTA_DATA_VERDICT ─► NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN
func parseVerdict(data []byte) (*expr.Verdict, error) {
	for _, nest := range []uint16{unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT} {
		attributes, err := netlink.UnmarshalAttributes(data)
		if err != nil {
			return nil, fmt.Errorf("immediate: %w", err)
		}
		data = nil
		for _, a := range attributes {
			if a.Type&^unix.NLA_F_NESTED == nest {
				data = a.Data
			}
		}
	}
	if data == nil {
		return nil, nil
	}
	attributes, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, fmt.Errorf("verdict: %w", err)
	}
	v := &expr.Verdict{}
	for _, a := range attributes {
		switch {
		case a.Type == unix.NFTA_VERDICT_CODE && len(a.Data) == 4:
			v.Kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(a.Data)))
		case a.Type == unix.NFTA_VERDICT_CHAIN:
			v.Chain = text(a.Data)
		}
	}
	return v, nil
}

// text returns the value of a string attribute without the NUL at its end.
func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }
