package conformance

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// leaveTable puts a table of the agent's name into the host, as another agent with the same table name might have left
// it. The table drops all packets that come in. An agent that starts must replace the table.
func (h *host) leaveTable() error {
	err := h.pod.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		// The table is added before it is deleted, because deleting a table that does not exist is an error.
		table := conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
		conn.DelTable(table)
		table = conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
		chain := conn.AddChain(&nftables.Chain{
			Name: "MULTI-INGRESS", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		// The rules name the interfaces, so loopback traffic still passes.
		for _, iface := range h.indexes {
			name := make([]byte, 16)
			copy(name, iface)
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{58}}, // ICMPv6: neighbors and markers pass
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
