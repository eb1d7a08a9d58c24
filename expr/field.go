package expr

import (
	"slices"

	"github.com/google/nftables/expr"
)

// Op is how a field is compared.
type Op bool

// The comparisons.
const (
	Is    Op = false
	IsNot Op = true
)

func (o Op) text() string {
	if o == IsNot {
		return "!= "
	}
	return ""
}

func (o Op) cmp() expr.CmpOp {
	if o == IsNot {
		return expr.CmpOpNeq
	}
	return expr.CmpOpEq
}

// field is what a match reads of a packet.
type field struct {
	words string     // as nft calls it
	guard []expr.Any // keeps the packets from the rule that do not have the field
	load  []expr.Any // into reg
	swap  []expr.Any // brings the number into network byte order
	size  int        // bytes
}

// statement is a match that goes on from the field in reg.
func (f field) statement(text string, exprs ...expr.Any) Statement {
	return Statement{Text: f.words + " " + text, Exprs: slices.Concat(f.guard, f.load, exprs)}
}

// in looks the field up in a set.
func (f field) in(op Op, set string) Statement {
	lookup := &expr.Lookup{SourceRegister: reg, SetName: set, Invert: bool(op)}
	return f.statement(op.text()+"@"+set, append(slices.Clone(f.swap), lookup)...)
}

// equal compares with one value, which is in the byte order that the packet has it in.
func (f field) equal(op Op, text string, value []byte) Statement {
	return f.statement(op.text()+text, &expr.Cmp{Op: op.cmp(), Register: reg, Data: value})
}

// within compares with both ends, in network byte order. As nft does, a range is two comparisons, and all but a range
// is one expression.
func (f field) within(op Op, text string, from, to []byte) Statement {
	exprs := slices.Clone(f.swap)
	if op == IsNot {
		exprs = append(exprs, &expr.Range{Op: expr.CmpOpNeq, Register: reg, FromData: from, ToData: to})
	} else {
		exprs = append(exprs,
			&expr.Cmp{Op: expr.CmpOpGte, Register: reg, Data: from},
			&expr.Cmp{Op: expr.CmpOpLte, Register: reg, Data: to})
	}
	return f.statement(op.text()+text, exprs...)
}

// masked compares what the mask leaves.
func (f field) masked(op Op, text string, mask, value []byte) Statement {
	return f.statement(text, keepBits(mask), &expr.Cmp{Op: op.cmp(), Register: reg, Data: value})
}

// keepBits keeps of reg what the mask has.
func keepBits(mask []byte) expr.Any {
	return &expr.Bitwise{
		SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask)),
	}
}
