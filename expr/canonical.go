//go:build linux

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

// Canonical returns a text for a payload of NFTA_RULE_EXPRESSIONS. Two payloads have the same text if and only if their rules
// do the same, regardless of whether Marshal made them or the kernel dumped them.
//
// A dump differs from the payload that was sent: the kernel sets no NLA_F_NESTED flags, leaves out the id of a set, and
// adds attributes with default values, and counters have counted. Canonical evens out these differences and no others.
// Unknown attributes and expressions stay in the text as bytes. The text of `meta l4proto tcp`, for example, is
//
//	meta{ 1=00000001 2=00000010 }cmp{ 1=00000001 2=00000000 3={ 1=06 } }
//
// where each number before "=" is the type of an attribute. An error means that the payload is no list of attributes.
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

// attributes describes a list of netlink attributes, so that Canonical knows which attributes are lists themselves: a
// dump has no NLA_F_NESTED flag that would tell. The zero value describes a list of plain bytes without defaults.
type attributes struct {
	nested map[uint16]attributes // attributes that hold lists themselves, by type
	zero   []uint16              // attributes that the kernel may add or leave out when their value is 0
}

// nftData describes struct nft_data: NFTA_DATA_VALUE with bytes, or NFTA_DATA_VERDICT with a code and a chain.
var nftData = attributes{nested: map[uint16]attributes{unix.NFTA_DATA_VERDICT: {}}}

// known describes expressions by name. An expression that is not in it has plain attributes without defaults: Canonical
// then compares it byte by byte, so a rule with it at worst seems to differ from an equal rule.
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

// nameAndData returns NFTA_EXPR_NAME and NFTA_EXPR_DATA of an NFTA_LIST_ELEM.
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

// canonicalExpr writes the text of an NFTA_LIST_ELEM: the name of the expression and its attributes.
func canonicalExpr(b *strings.Builder, element []byte) error {
	name, data, err := nameAndData(element)
	if err != nil {
		return err
	}
	b.WriteString(name)
	if name == "counter" { // its data are the packets and bytes counted so far
		data = nil
	}
	if err := known[name].write(b, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// write writes the attributes in data, in the order of their types: the kernel dumps them in an order of its own.
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
