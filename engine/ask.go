package engine

import (
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// ofTable is the attribute with the table's name: NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are the same number.
const ofTable = unix.NFTA_RULE_TABLE

// dump calls visit with the attributes of each rule or each set of the table. The kernel filters these two dumps by the
// name of the table (nf_tables_dump_rules, nf_tables_dump_sets); it does not filter the dump of chains.
func (r *reader) dump(get, answer uint16, op string, visit func(nfnl.Attrs) error) error {
	r.batch.reset()
	r.batch.begin(get, unix.NLM_F_DUMP, nfnl.Label{Op: op, Object: TableName})
	r.batch.Text(ofTable, TableName)
	r.batch.End()
	return r.ask(r.transport, answer, visit)
}
