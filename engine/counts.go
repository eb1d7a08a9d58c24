package engine

import (
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// RuleCount is the count of a rule: packets that reached its counter, and their bytes. A rule without a counter has a
// RuleCount too, with HasCounter false.
type RuleCount struct {
	Family         expr.TableFamily // of the table
	Chain, Comment string
	Handle         uint64 // of the rule while it exists; no other rule ever has the same handle
	HasCounter     bool
	Packets, Bytes uint64
}

// errFilled is the error for a table that another process has filled with rules: reading all of them could take all of
// the agent's memory.
var errFilled = errors.New("the table has far more rules than were applied")

// Counts reads the counters of all rules of the table, chain by chain in the order of the rules. It reads at most as
// many rules as limitsFor allows, since another process may have filled the table.
func (e *Engine) Counts() ([]RuleCount, error) {
	x, done := e.exchange()
	defer done()
	var counts []RuleCount
	var applied []Ruleset
	if e.have != nil {
		applied = append(applied, e.have.ruleset)
	}
	// Without a known table, only the fixed part of the limit counts.
	most := limitsFor(applied).rules
	r := reader{exchange: x, transport: e.transport}
	err := r.dump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, "GETRULE", func(a nfnl.Attrs) error {
		c := RuleCount{
			Family: e.family,
			Chain:  a.Text(unix.NFTA_RULE_CHAIN), Comment: nfnl.UserData(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment),
			Handle: a.Uint64(unix.NFTA_RULE_HANDLE),
		}
		if err := c.read(a[unix.NFTA_RULE_EXPRESSIONS]); err != nil {
			return err
		}
		// Checked before the rule is kept, so that the list stays within the limit.
		if len(counts) == most {
			return errFilled
		}
		counts = append(counts, c)
		return nil
	})
	if err != nil {
		e.stale = true // the dump may have ended with a new socket, which does not own the table
		return nil, fmt.Errorf("read the counters of %s: %w", e.pod, err)
	}
	return counts, nil
}

// read finds the counter among the expressions of a rule.
func (c *RuleCount) read(expressions []byte) error {
	var inner error
	err := nfnl.EachAttr(expressions, func(_ uint16, element []byte) {
		expression, err := nfnl.ParseAttrs(element)
		if err != nil || expression.Text(unix.NFTA_EXPR_NAME) != "counter" {
			inner = errors.Join(inner, err)
			return
		}
		counter, err := nfnl.ParseAttrs(expression[unix.NFTA_EXPR_DATA])
		inner = errors.Join(inner, err)
		// A rule has at most one counter.
		c.HasCounter, c.Packets, c.Bytes = true, counter.Uint64(unix.NFTA_COUNTER_PACKETS), counter.Uint64(unix.NFTA_COUNTER_BYTES)
	})
	return errors.Join(inner, err)
}
