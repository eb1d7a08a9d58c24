package trace

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// tracedRule is a rule in the kernel, as far as a Step shows it.
type tracedRule struct {
	chain, comment string
	text           string   // as nft prints the rule; empty unless the rule is a common rule of the agent
	sets           []string // that the rule looks up
}

// tableKey identifies a table in the namespace.
type tableKey struct {
	family uint8
	name   string
}

// ruleIndex finds rules by their handles. It reads a table when the first packet passes it, and keeps the rules until the
// generation of the tables changes.
type ruleIndex struct {
	conn       *nfnl.Conn
	generation uint32
	// tables has the tables that were read in this generation, with their rules by handle. A table without rules has an
	// empty map.
	tables map[tableKey]map[uint64]tracedRule
}

// refresh drops all rules if any table has changed since they were read: a new table with the same name may use the same
// handles for other rules.
func (r *ruleIndex) refresh() error {
	var m nfnl.Messages
	begin(&m, engine.Inet, unix.NFT_MSG_GETGEN, 0, nfnl.Label{Op: "GETGEN"})
	m.End()
	var generation uint32
	err := r.conn.Ask(&m, nfnl.NFTables|unix.NFT_MSG_NEWGEN, func(a nfnl.Attrs) error {
		generation = a.Uint32(unix.NFTA_GEN_ID)
		return nil
	})
	if err != nil {
		return fmt.Errorf("generation of the tables: %w", err)
	}
	if generation != r.generation || r.tables == nil {
		r.generation, r.tables = generation, map[tableKey]map[uint64]tracedRule{}
	}
	return nil
}

// find returns the rule of an event, or the zero value if the rule has been deleted since. If the rule is not among the
// rules that were read, find looks for a newer generation and reads the table again.
// The common case costs no question: the rule is known.
func (r *ruleIndex) find(e event) (tracedRule, error) {
	key := tableKey{e.family, e.table}
	rule, known := r.tables[key][e.handle]
	if known && rule.chain == e.chain { // the chain is a check against a handle that has been used again
		return rule, nil
	}
	// The table was read but lacks the rule, or has another rule with the handle: it may have changed since. refresh
	// empties r.tables only if the generation differs, so a deleted rule does not cause a dump for each packet.
	if _, isRead := r.tables[key]; isRead {
		if err := r.refresh(); err != nil {
			return tracedRule{}, err
		}
	}
	if _, isRead := r.tables[key]; !isRead {
		rules, err := r.read(key)
		if err != nil {
			return tracedRule{}, err
		}
		r.tables[key] = rules
	}
	// The rule was deleted after the packet matched it, if it is still missing.
	if rule = r.tables[key][e.handle]; rule.chain != e.chain {
		return tracedRule{}, nil
	}
	return rule, nil
}

// read dumps the rules of a table. Rules that another process adds meanwhile may be missing; find then reads the table again.
// A table that does not exist any more has no rules.
func (r *ruleIndex) read(key tableKey) (map[uint64]tracedRule, error) {
	rules := map[uint64]tracedRule{}
	var m nfnl.Messages
	m.BeginNFT(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, key.family, nfnl.Label{Op: "GETRULE", Object: key.name})
	m.Text(unix.NFTA_RULE_TABLE, key.name)
	m.End()
	err := r.conn.Ask(&m, nfnl.NFTables|unix.NFT_MSG_NEWRULE, func(a nfnl.Attrs) error {
		if a.Text(unix.NFTA_RULE_TABLE) == key.name {
			rules[a.Uint64(unix.NFTA_RULE_HANDLE)] = tracedRule{
				chain:   a.Text(unix.NFTA_RULE_CHAIN),
				comment: nfnl.UserData(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment),
				text:    commonTexts.of(a[unix.NFTA_RULE_EXPRESSIONS]),
				sets:    setsOf(a[unix.NFTA_RULE_EXPRESSIONS]),
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read the rules of table %s %q: %w", familyText(key.family), key.name, err)
	}
	return rules, nil
}

// ruleTexts maps the canonical bytecode of rules to their text. A dump has bytecode only; translating any bytecode back
// to text would take an nft of its own, and a rule of a policy is known by its comment.
type ruleTexts map[string]string

// commonTexts has the rules without a comment that each table of the agent has. Jumps are not among them, because the
// Target of a Step already shows where they lead.
var commonTexts = newRuleTexts()

// newRuleTexts marshals the common rules in the way that package engine does.
func newRuleTexts() ruleTexts {
	list := [][]expr.Statement{
		{expr.Established(), expr.Accept()},
		{expr.Counter(), expr.Drop()},
		{expr.ICMP(sets.V4), expr.Accept()},
		{expr.ICMP(sets.V6), expr.Accept()},
	}
	for _, matches := range expr.LinkControl() {
		list = append(list, append(slices.Clip(matches), expr.Accept()))
	}
	list = append(list, []expr.Statement{expr.ARP(), expr.Accept()}, append(expr.NotIP(), expr.Counter(), expr.Drop()))
	texts := ruleTexts{}
	for _, f := range expr.TableFamilies {
		for _, statements := range list {
			payload, err := expr.Marshal(f, statements)
			// A statement that a family lacks, such as ARP in inet, has no bytecode there.
			if err == nil {
				texts[texts.key(payload)] = engine.Rule{Statements: statements}.Text()
			}
		}
	}
	return texts
}

// key returns the canonical text of the bytecode: the kernel dumps a rule with other attributes than it was made with.
func (t ruleTexts) key(payload []byte) string {
	key, err := expr.Canonical(payload)
	if err != nil {
		return ""
	}
	return key
}

// of returns the text of the rule with the bytecode, or nothing if the rule is no common rule.
func (t ruleTexts) of(payload []byte) string { return t[t.key(payload)] }

// setsOf returns the names of the sets that a rule looks up. The payload is the list of expressions of the rule. It
// comes from any program's table, so a malformed expression is skipped and is no error.
func setsOf(payload []byte) (names []string) {
	visit := func(_ uint16, element []byte) {
		e, err := nfnl.ParseAttrs(element)
		if err != nil || e.Text(unix.NFTA_EXPR_NAME) != "lookup" {
			return
		}
		if data, err := nfnl.ParseAttrs(e[unix.NFTA_EXPR_DATA]); err == nil {
			names = append(names, data.Text(unix.NFTA_LOOKUP_SET))
		}
	}
	if err := nfnl.EachAttr(payload, visit); err != nil {
		return nil
	}
	return names
}
