package conformance

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// leaveTable puts a table of the agent's name into the host, as another agent might have left it. It drops all packets
// that come in.
func (h *host) leaveTable() error {
	err := h.pod.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
		conn.DelTable(table)
		table = conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
		chain := conn.AddChain(&nftables.Chain{
			Name: "MULTI-INGRESS", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		for _, iface := range h.indexes {
			name := make([]byte, 16)
			copy(name, iface)
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{58}}, // ICMPv6
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
		return conn.Flush()
	})
	if err != nil {
		return fmt.Errorf("leave a table in %s: %w", h.Name, err)
	}
	return nil
}
