//go:build linux

package engine

import (
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// readRules replaces each rule by the equivalent rule of the likely rulesets, so that the plan finds them equal. A rule
// without equivalent gets a text that no other rule has, so that the plan deletes it.
func (r *reader) readRules() error {
	// The rules that are likely in the table, by their bytecode and comment.
	known, err := r.canonical.ofRules(r.batch.family, r.likely)
	if err != nil {
		return err
	}
	return r.dumpRules("", func(a nfnl.Attrs) error {
		if r.most.rules--; r.most.rules < 0 {
			return errForeign
		}
		payload := a[unix.NFTA_RULE_EXPRESSIONS]
		bytecode, err := r.canonical.of(payload)
		if err != nil {
			return err
		}
		// The comment belongs to the key: two policies may have rules with the same bytecode.
		rule, ok := known[ruleKey{bytecode, nfnl.UserData(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment)}]
		// A rule with a compat attribute is from iptables-nft: its effect is not in the bytecode alone.
		if _, compat := a[unix.NFTA_RULE_COMPAT]; !ok || compat {
			opaque, err := expr.Opaque(payload, bytecode)
			if err != nil {
				return err
			}
			rule = Rule{Statements: []expr.Statement{opaque}}
		}
		chain := a.Text(unix.NFTA_RULE_CHAIN)
		r.rules[chain] = append(r.rules[chain], rule)
		r.handles[chain] = append(r.handles[chain], a.Uint64(unix.NFTA_RULE_HANDLE))
		return nil
	})
}

// ruleKey identifies equivalent rules.
type ruleKey struct{ bytecode, comment string }

// canonicals caches the canonical texts of bytecode, because pods with the same policies have the same rules.
type canonicals map[string]string

// mostCanonicals bounds the cache. A full cache starts again empty.
const mostCanonicals = 10_000

// of returns the canonical text of the bytecode of a rule.
func (known *canonicals) of(payload []byte) (string, error) {
	if text, ok := (*known)[string(payload)]; ok {
		return text, nil
	}
	text, err := expr.Canonical(payload)
	if err != nil {
		return "", err
	}
	// Dropping all texts is simpler than dropping the oldest, and the texts of common rules are back after a few pods.
	if *known == nil || len(*known) >= mostCanonicals {
		*known = canonicals{}
	}
	(*known)[string(payload)] = text
	return text, nil
}

// ofRules returns the rules of the rulesets by their keys, as they are in a table of the family.
func (known *canonicals) ofRules(f expr.TableFamily, rulesets []Ruleset) (map[ruleKey]Rule, error) {
	rules := map[ruleKey]Rule{}
	seen := map[*Chain]bool{}
	for _, rs := range rulesets {
		for _, c := range rs.Chains {
			if seen[c] {
				// Pods share chains, and both likely rulesets share most of them.
				continue
			}
			seen[c] = true
			if err := known.addRules(f, rules, c); err != nil {
				return nil, err
			}
		}
	}
	return rules, nil
}

// addRules adds the rules of a chain by their keys, except opaque rules: these were read from the kernel and cannot be
// marshaled.
func (known *canonicals) addRules(f expr.TableFamily, to map[ruleKey]Rule, c *Chain) error {
	for _, rule := range c.Rules {
		if expr.IsOpaque(rule.Statements) {
			continue
		}
		b, err := expr.Marshal(f, rule.Statements)
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
