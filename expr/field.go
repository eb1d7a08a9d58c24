package expr

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
)

// Op is the operator of a match: whether it matches equal or different values. The zero value is Is.
type Op bool

// The operators.
const (
	Is    Op = false
	IsNot Op = true
)

// text returns the operator as nft prints it in front of a value, with a space. nft prints no "==".
func (o Op) text() string {
	if o == IsNot {
		return "!= "
	}
	return ""
}

func (o Op) cmp() bytecode.CmpOp {
	if o == IsNot {
		return bytecode.CmpOpNeq
	}
	return bytecode.CmpOpEq
}

// field is a property of a packet that a match can read. A match runs checks, load, then swap if it compares ranges or
// looks up a set, and then the comparison. All of them use the single register reg.
type field struct {
	words string // the name in nft
	// A packet without the field fails the checks, so it matches neither Is nor IsNot.
	checks []bytecode.Any // match the packets that have the field; nil if all packets have it
	load   []bytecode.Any // loads the field into reg
	swap   []bytecode.Any // converts the number in reg into network byte order; nil if it already is
	size   int            // bytes
}

// statement returns a match: the checks, the load, then the given comparison with reg. The text follows the words of
// the field: "ip saddr" and "10.0.0.1" become `ip saddr 10.0.0.1`.
func (f field) statement(text string, exprs ...bytecode.Any) Statement {
	return Statement{Text: f.words + " " + text, Exprs: slices.Concat(f.checks, f.load, exprs)}
}

// in looks the field up in a named set. Keys of sets are in network byte order, so the field is swapped if needed.
func (f field) in(op Op, set string) Statement {
	// The swap is cloned, because append must not write into an array that other statements share.
	lookup := &bytecode.Lookup{SourceRegister: reg, SetName: set, Invert: bool(op)}
	return f.statement(op.text()+"@"+set, append(slices.Clone(f.swap), lookup)...)
}

// equal compares the field with a value in the byte order in which the kernel loads the field.
func (f field) equal(op Op, text string, value []byte) Statement {
	return f.statement(op.text()+text, &bytecode.Cmp{Op: op.cmp(), Register: reg, Data: value})
}

// within compares the field with both ends of a range, in network byte order: the kernel compares byte strings. As nft
// does, Is takes two comparisons and IsNot takes a range expression. The bytecode must be the same as nft's, so that
// nft prints the rule as the text says.
func (f field) within(op Op, text string, from, to []byte) Statement {
	exprs := slices.Clone(f.swap)
	if op == IsNot {
		exprs = append(exprs, &bytecode.Range{Op: bytecode.CmpOpNeq, Register: reg, FromData: from, ToData: to})
	} else {
		exprs = append(exprs,
			&bytecode.Cmp{Op: bytecode.CmpOpGte, Register: reg, Data: from},
			&bytecode.Cmp{Op: bytecode.CmpOpLte, Register: reg, Data: to})
	}
	return f.statement(op.text()+text, exprs...)
}

// masked compares the bits of the field that the mask keeps with a value. The value must have no other bits. The text
// includes the operator, since nft prints some masks as prefixes.
func (f field) masked(op Op, text string, mask, value []byte) Statement {
	return f.statement(text, keepBits(mask), &bytecode.Cmp{Op: op.cmp(), Register: reg, Data: value})
}

// keepBits clears the bits of reg that are not in the mask.
func keepBits(mask []byte) bytecode.Any {
	return &bytecode.Bitwise{
		SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask)),
	}
}
