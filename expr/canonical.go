package expr

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Canonical is a text that is equal for two payloads of NFTA_RULE_EXPRESSIONS exactly if the rules do the same,
// whether the payload was made by Marshal or dumped by the kernel. The kernel dumps no nested flags, leaves out the
// set's id, and adds attributes that say what is so by default; counters have counted. All else must be the same: an
// attribute or expression that is not known here stays in the text, and so is equal only to itself.
func Canonical(payload []byte) (string, error) {
	list, err := netlink.UnmarshalAttributes(payload)
	if err != nil {
		return "", fmt.Errorf("rule expressions: %w", err)
	}
	var b strings.Builder
	for _, element := range list {
		if err := canonicalExpr(&b, element.Data); err != nil {
			return "", fmt.Errorf("rule expression: %w", err)
		}
	}
	return b.String(), nil
}

// attributes is what is known of a list of them: which hold lists, and which say nothing when they are zero.
type attributes struct {
	nested map[uint16]attributes
	zero   []uint16
}

// nftData is NFTA_DATA_VALUE, which holds bytes, or NFTA_DATA_VERDICT, which holds a code and a chain.
var nftData = attributes{nested: map[uint16]attributes{unix.NFTA_DATA_VERDICT: {}}}

// known has the expressions of the vocabulary for which an empty attributes is not enough.
var known = map[string]attributes{
	"cmp":       {nested: map[uint16]attributes{unix.NFTA_CMP_DATA: nftData}},
	"immediate": {nested: map[uint16]attributes{unix.NFTA_IMMEDIATE_DATA: nftData}},
	"lookup":    {zero: []uint16{unix.NFTA_LOOKUP_FLAGS, unix.NFTA_LOOKUP_SET_ID}},
	"range":     {nested: map[uint16]attributes{unix.NFTA_RANGE_FROM_DATA: nftData, unix.NFTA_RANGE_TO_DATA: nftData}},
	"reject":    {zero: []uint16{unix.NFTA_REJECT_ICMP_CODE}},
	"bitwise": {
		nested: map[uint16]attributes{unix.NFTA_BITWISE_MASK: nftData, unix.NFTA_BITWISE_XOR: nftData},
		zero:   []uint16{bitwiseOp},
	},
}

// bitwiseOp is NFTA_BITWISE_OP, which x/sys lacks; zero is NFT_BITWISE_MASK_XOR.
const bitwiseOp = 6

// nameAndData returns the parts of one NFTA_LIST_ELEM: NFTA_EXPR_NAME and NFTA_EXPR_DATA.
func nameAndData(element []byte) (name string, data []byte, err error) {
	parts, err := netlink.UnmarshalAttributes(element)
	if err != nil {
		return "", nil, err
	}
	for _, p := range parts {
		switch p.Type &^ unix.NLA_F_NESTED {
		case unix.NFTA_EXPR_NAME:
			name = text(p.Data)
		case unix.NFTA_EXPR_DATA:
			data = p.Data
		}
	}
	return name, data, nil
}

// canonicalExpr writes one NFTA_LIST_ELEM.
func canonicalExpr(b *strings.Builder, element []byte) error {
	name, data, err := nameAndData(element)
	if err != nil {
		return err
	}
	b.WriteString(name)
	if name == "counter" {
		data = nil
	}
	if err := known[name].write(b, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (a attributes) write(b *strings.Builder, data []byte) error {
	list, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].Type &^= unix.NLA_F_NESTED
	}
	slices.SortStableFunc(list, func(x, y netlink.Attribute) int { return cmp.Compare(x.Type, y.Type) })
	b.WriteByte('{')
	for _, attr := range list {
		if slices.Contains(a.zero, attr.Type) && len(bytes.Trim(attr.Data, "\x00")) == 0 {
			continue
		}
		fmt.Fprintf(b, " %d=", attr.Type)
		if inner, ok := a.nested[attr.Type]; !ok {
			fmt.Fprintf(b, "%x", attr.Data)
		} else if err := inner.write(b, attr.Data); err != nil {
			return err
		}
	}
	b.WriteString(" }")
	return nil
}
