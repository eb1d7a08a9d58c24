package expr

import (
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Statement is one nft statement: its text, as `nft --stateless list` prints it, and the kernel expressions it stands
// for. Equal texts are equal bytecode. The zero value is no statement. A Statement is not changed after it was made.
type Statement struct {
	Text  string
	Exprs []expr.Any

	opaque bool // made by Opaque
}

// Registers (linux/netfilter/nf_tables.h, enum nft_registers): NFT_REG_1 is 16 bytes wide, and the same memory as the
// four 4-byte registers NFT_REG32_00 to _03. A concatenation is read from 4-byte slots in a row.
const (
	reg      = unix.NFT_REG_1
	slotSize = 4
)

// slot is the n-th 4-byte register, counted from the start of reg. The first of each four has the name of the wide one,
// as it has in nft and in what the kernel dumps.
func slot(n int) uint32 {
	if n%4 == 0 {
		return uint32(reg + n/4)
	}
	return uint32(unix.NFT_REG32_00 + n)
}

// Marshal is the payload of NFTA_RULE_EXPRESSIONS for statements in a table of the family: one NFTA_LIST_ELEM an
// expression. It leaves out a check of the family or the protocol that an earlier statement of the rule has made
// already, as nft does.
func Marshal(f TableFamily, statements []Statement) ([]byte, error) {
	var list []netlink.Attribute
	passed := map[check]bool{}
	for _, s := range statements {
		if s = f.translate(s); s.opaque {
			return nil, fmt.Errorf("statement %q: %w", s.Text, errOpaque)
		}
		for i := 0; i < len(s.Exprs); i++ {
			if c, ok := checkAt(s.Exprs, i); ok {
				if passed[c] {
					i++ // both of its expressions
					continue
				}
				passed[c] = true
			}
			b, err := expr.Marshal(f.Number(), s.Exprs[i])
			if err != nil {
				return nil, fmt.Errorf("statement %q: %w", s.Text, err)
			}
			list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
		}
	}
	return netlink.MarshalAttributes(list)
}

// check is what must be so for the rest of a rule to be looked at, and stays so: a packet has one family and protocol.
type check struct {
	key   expr.MetaKey
	value string // the bytes of the comparison
}

// checkAt reads the two expressions that a check is.
func checkAt(exprs []expr.Any, i int) (check, bool) {
	if i+1 >= len(exprs) {
		return check{}, false
	}
	load, isLoad := exprs[i].(*expr.Meta)
	cmp, isCmp := exprs[i+1].(*expr.Cmp)
	if !isLoad || !isCmp || cmp.Op != expr.CmpOpEq {
		return check{}, false
	}
	switch load.Key {
	case expr.MetaKeyNFPROTO, expr.MetaKeyPROTOCOL, expr.MetaKeyL4PROTO:
		return check{load.Key, string(cmp.Data)}, true
	}
	return check{}, false
}
