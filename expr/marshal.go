//go:build linux

package expr

import (
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Marshal returns the payload of NFTA_RULE_EXPRESSIONS for a rule in a table of the family: an NFTA_LIST_ELEM for each
// expression. As nft does, it leaves out a check of the family or the protocol if an earlier statement of the rule has the
// same check.
func Marshal(f TableFamily, statements []Statement) ([]byte, error) {
	var list []netlink.Attribute
	// The checks that the rule has made up to this point.
	passed := map[check]bool{}
	for _, s := range statements {
		if s = f.translate(s); s.opaque {
			return nil, fmt.Errorf("statement %q: %w", s.Text, errOpaque)
		}
		for i := 0; i < len(s.Exprs); i++ {
			if c, ok := checkAt(s.Exprs, i); ok {
				if passed[c] {
					i++ // skip both expressions of the check
					continue
				}
				passed[c] = true
			}
			// google/nftables writes the bytes of a single expression. The family matters for a few expressions only,
			// such as reject.
			b, err := expr.Marshal(f.Number(), s.Exprs[i])
			if err != nil {
				return nil, fmt.Errorf("statement %q: %w", s.Text, err)
			}
			list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
		}
	}
	return netlink.MarshalAttributes(list)
}

// errOpaque is the error of Marshal for a statement that Opaque made: the statement has a part of the rule only, so to
// send it would write another rule.
var errOpaque = errors.New("a rule of unknown bytecode cannot be sent")
