package expr

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"
)

// Statement is an nft statement: its text, as `nft --stateless list` prints it, and the kernel expressions that nft compiles
// it to. Statements with equal texts have equal expressions. The zero value is no statement. A Statement is immutable and may
// be shared.
type Statement struct {
	Text  string
	Exprs []bytecode.Any

	// An opaque statement has only the expressions that Summarize reads.
	opaque bool // made by Opaque
}

// Registers (linux/netfilter/nf_tables.h, enum nft_registers): NFT_REG_1 is 16 bytes wide, and shares its memory with the four
// 4-byte registers NFT_REG32_00 to NFT_REG32_03. The kernel reads a concatenation from adjacent 4-byte registers ("slots").
const (
	reg      = uapi.NFT_REG_1
	slotSize = 4
)

// slot returns the n-th 4-byte register, counted from the start of reg. A slot at the start of a 16-byte register has the
// number of the 16-byte register, since nft and the dumps of the kernel use this number.
// The kernel dumps a 4-byte register at a multiple of 16 bytes under the number of the 16-byte register.
func slot(n int) uint32 {
	if n%4 == 0 {
		return uint32(reg + n/4)
	}
	return uint32(uapi.NFT_REG32_00 + n)
}

// check is a comparison of the packet's family or protocol. It needs to be made only once in a rule, because the family
// and the protocol of a packet do not change. nft makes it once too, so a rule with a second check would differ from
// nft's rule.
type check struct {
	key   bytecode.MetaKey
	value string // the bytes of the comparison
}

// checkAt returns the check that the expressions i and i+1 make, a load and a comparison. ok is false if they are no check.
func checkAt(exprs []bytecode.Any, i int) (c check, ok bool) {
	if i+1 >= len(exprs) {
		return check{}, false
	}
	load, isLoad := exprs[i].(*bytecode.Meta)
	cmp, isCmp := exprs[i+1].(*bytecode.Cmp)
	if !isLoad || !isCmp || cmp.Op != bytecode.CmpOpEq {
		return check{}, false
	}
	switch load.Key {
	case bytecode.MetaKeyNFPROTO, bytecode.MetaKeyPROTOCOL, bytecode.MetaKeyL4PROTO:
		return check{load.Key, string(cmp.Data)}, true
	}
	return check{}, false
}
