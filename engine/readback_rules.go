package engine

import (
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// readRules takes each rule for the likely one that does the same, so that the plan finds them equal. Another rule gets
// a text that equals none, so that the plan deletes it.
func (r *reader) readRules() error {
	known, err := r.canonical.ofRules(r.likely)
	if err != nil {
		return err
	}
	return r.dump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, "GETRULE", func(a attrs) error {
		if r.most.rules--; r.most.rules < 0 {
			return errForeign
		}
		payload := a[unix.NFTA_RULE_EXPRESSIONS]
		bytecode, err := r.canonical.of(payload)
		if err != nil {
			return err
		}
		rule, ok := known[ruleKey{bytecode, tlv(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment)}]
		if _, compat := a[unix.NFTA_RULE_COMPAT]; !ok || compat {
			opaque, err := expr.Opaque(payload, bytecode)
			if err != nil {
				return err
			}
			rule = Rule{Statements: []expr.Statement{opaque}}
		}
		chain := a.string(unix.NFTA_RULE_CHAIN)
		r.rules[chain] = append(r.rules[chain], rule)
		r.handles[chain] = append(r.handles[chain], a.uint64(unix.NFTA_RULE_HANDLE))
		return nil
	})
}

// ruleKey is what must be equal for a rule in the kernel to be a likely one.
type ruleKey struct{ bytecode, comment string }

// canonicals are the canonical texts of bytecode that was met before. Pods with the same policies have the same rules.
type canonicals map[string]string

// mostCanonicals bounds what is remembered: then it starts anew.
const mostCanonicals = 10_000

func (known *canonicals) of(payload []byte) (string, error) {
	if text, ok := (*known)[string(payload)]; ok {
		return text, nil
	}
	text, err := expr.Canonical(payload)
	if err != nil {
		return "", err
	}
	if *known == nil || len(*known) >= mostCanonicals {
		*known = canonicals{}
	}
	(*known)[string(payload)] = text
	return text, nil
}

// ofRules are the rules of rulesets by what must be equal.
func (known *canonicals) ofRules(rulesets []Ruleset) (map[ruleKey]Rule, error) {
	rules := map[ruleKey]Rule{}
	seen := map[*Chain]bool{}
	for _, rs := range rulesets {
		for _, c := range rs.Chains {
			if seen[c] {
				continue
			}
			seen[c] = true
			if err := known.addRules(rules, c); err != nil {
				return nil, err
			}
		}
	}
	return rules, nil
}

// addRules passes over rules that were read from the kernel and not known then: they are as unknown now.
func (known *canonicals) addRules(to map[ruleKey]Rule, c *Chain) error {
	for _, rule := range c.Rules {
		if expr.IsOpaque(rule.Statements) {
			continue
		}
		b, err := expr.Marshal(rule.Statements)
		if err != nil {
			return err
		}
		bytecode, err := known.of(b)
		if err != nil {
			return err
		}
		to[ruleKey{bytecode, commentText(rule.Comment)}] = rule
	}
	return nil
}
