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

// tracedRule is what is known of a rule in the kernel.
type tracedRule struct {
	chain, comment, text string
	sets                 []string
}

type tableKey struct {
	family uint8
	name   string
}

// ruleIndex knows the rules of the tables that packets pass by their handles, as of one generation.
type ruleIndex struct {
	conn       *nfnl.Conn
	generation uint32
	tables     map[tableKey]map[uint64]tracedRule
}

// refresh forgets all rules if anything has changed since they were read: a new table of the same name uses handles again.
func (r *ruleIndex) refresh() error {
	var m nfnl.Messages
	begin(&m, unix.NFT_MSG_GETGEN, 0, nfnl.Label{Op: "GETGEN"})
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

// find returns the rule of an event, which is zero for one that is gone already.
func (r *ruleIndex) find(e event) (tracedRule, error) {
	key := tableKey{e.family, e.table}
	rule, known := r.tables[key][e.handle]
	if known && rule.chain == e.chain {
		return rule, nil
	}
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
	if rule = r.tables[key][e.handle]; rule.chain != e.chain {
		return tracedRule{}, nil
	}
	return rule, nil
}

// read dumps the rules of a table. One that changes meanwhile is read once more when a packet asks for what is missing.
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
		return nil, fmt.Errorf("read the rules of table %s %s: %w", familyText(key.family), key.name, err)
	}
	return rules, nil
}

// ruleTexts is the text of rules by their canonical bytecode.
type ruleTexts map[string]string

// commonTexts are the rules without a comment that every table of the agent's has. Jumps say themselves where they lead.
var commonTexts = newRuleTexts()

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
	texts := ruleTexts{}
	for _, statements := range list {
		payload, err := expr.Marshal(statements)
		if err == nil {
			texts[texts.key(payload)] = engine.Rule{Statements: statements}.Text()
		}
	}
	return texts
}

func (t ruleTexts) key(payload []byte) string {
	key, err := expr.Canonical(payload)
	if err != nil {
		return ""
	}
	return key
}

func (t ruleTexts) of(payload []byte) string { return t[t.key(payload)] }

// setsOf lists the sets that a rule looks into.
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
