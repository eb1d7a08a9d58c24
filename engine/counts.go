//go:build linux

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
	Handle         uint64 // of the rule; no other rule has the same handle while the table exists
	HasCounter     bool
	Accepts        bool // the rule accepts the packets that reach its end
	Packets, Bytes uint64
}

// errFilled is the error for a table that another process has filled with rules: reading all of them could take all of
// the agent's memory.
var errFilled = errors.New("the table has far more rules than were applied")

// Counts reads the counters of all rules of the table, chain by chain in the order of the rules. It reads at most as
// many rules as limitsFor allows, since another process may have filled the table.
func (e *Engine) Counts() ([]RuleCount, error) { return e.countsOf("") }

// DropCounts reads the counters of the rules of the chains of interfaces: the cost does not depend on the policies.
func (e *Engine) DropCounts() (all []RuleCount, err error) {
	if e.have == nil {
		return nil, nil
	}
	for _, c := range e.have.ruleset.Chains {
		if name, _ := ParseChain(c.Name); name.Kind != KindInterface || name.Replies {
			continue
		}
		counts, err := e.countsOf(c.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, counts...)
	}
	return all, nil
}

// countsOf reads the counters of the rules of a chain; empty: of all chains.
func (e *Engine) countsOf(chain string) ([]RuleCount, error) {
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
	err := r.dumpRules(chain, func(a nfnl.Attrs) error {
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
		inner = errors.Join(inner, err)
		var data nfnl.Attrs
		name := expression.Text(unix.NFTA_EXPR_NAME)
		if name == "counter" || name == "immediate" {
			data, err = nfnl.ParseAttrs(expression[unix.NFTA_EXPR_DATA])
			inner = errors.Join(inner, err)
		}
		switch name {
		case "counter": // a rule has at most one
			c.HasCounter, c.Packets, c.Bytes = true, data.Uint64(unix.NFTA_COUNTER_PACKETS), data.Uint64(unix.NFTA_COUNTER_BYTES)
		case "immediate":
			code, err := verdictCode(data)
			inner = errors.Join(inner, err)
			c.Accepts = err == nil && code == nfAccept
		}
	})
	return errors.Join(inner, err)
}

// nfAccept is NF_ACCEPT (linux/netfilter.h).
const nfAccept = 1

// verdictCode returns NFTA_VERDICT_CODE of an immediate expression. An expression without a verdict has the code of a drop, 0.
func verdictCode(immediate nfnl.Attrs) (uint32, error) {
	data, err := nfnl.ParseAttrs(immediate[unix.NFTA_IMMEDIATE_DATA])
	if err != nil {
		return 0, err
	}
	verdict, err := nfnl.ParseAttrs(data[unix.NFTA_DATA_VERDICT])
	return verdict.Uint32(unix.NFTA_VERDICT_CODE), err
}
