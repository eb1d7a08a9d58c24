package cache

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Common holds the user's rules for every isolated interface in a direction. They come before all policies.
// Without any of them, a direction has no user's rules.
type Common struct {
	Sources, Destinations sets.Addrs // packets from, or to, these addresses pass
	V4, V6                custom.Rules
}

// Common returns the settings of a direction.
func (o *Options) Common(d engine.Direction) *Common {
	if d == engine.Ingress {
		return &o.Ingress
	}
	return &o.Egress
}

// Custom returns the custom rules for a family.
func (c *Common) Custom(f sets.Family) custom.Rules {
	if f == sets.V4 {
		return c.V4
	}
	return c.V6
}

// commonPart is the part of a table that all pods share, for a family of tables and a direction.
// It is made once for the whole cache.
type commonPart struct {
	chains  []*engine.Chain // for packets of the direction
	replies []*engine.Chain // for the replies, where established connections can be revoked
	audit   []engine.Rule   // the rules of the common chain for an interface in audit mode, where nothing may drop
	sets    []*engine.Set
}

// commonTables are the commonParts by family and direction.
type commonTables [len(expr.TableFamilies)][len(engine.Directions)]commonPart

// commonParts makes all parts. If parts have the same set, they have the same pointer.
func commonParts(o Options) (parts commonTables) {
	known := map[string]*engine.Set{}
	for _, f := range expr.TableFamilies {
		for _, d := range engine.Directions {
			parts[f][d] = newCommonPart(f, d, o, known)
		}
	}
	return parts
}

// newCommonPart makes a part. known has the sets of the earlier parts. A frame never leaves a bridge by the port that
// it came in by, so a table of family bridge has no chain for packets of the pod to itself.
func newCommonPart(table expr.TableFamily, d engine.Direction, o Options, known map[string]*engine.Set) commonPart {
	part := commonPart{
		chains: []*engine.Chain{commonChain(d, o, "")}, replies: []*engine.Chain{commonChain(d, o, engine.RepliesPrefix)},
	}
	part.audit = auditRules(d, o)
	if table == engine.Inet {
		part.chains = append(part.chains, selfChain(d))
	}
	for _, f := range sets.Families {
		rules := o.Common(d).Custom(f)
		if len(rules.Rules) > 0 {
			part.chains = append(part.chains, customChain(table, engine.CustomChain(d, f), rules.Rules))
		}
		if len(rules.Replies) > 0 {
			part.replies = append(part.replies, customChain(table, engine.RepliesPrefix+engine.CustomChain(d, f), rules.Replies))
		}
		for _, s := range rules.Sets {
			part.sets = append(part.sets, customSet(s))
		}
	}
	if o.RevokeEstablished && d == engine.Ingress && table == engine.Inet {
		part.sets = append(part.sets, &engine.Set{
			Name: engine.ServedSet, Comment: "UDP servers from before the policies: no packet to them is a reply", Elements: engine.Served{},
		})
	}
	for _, a := range o.Common(d).allowed(d) {
		part.sets = append(part.sets, a.set)
	}
	// Both families and directions may have the same set; the engine compares pointers.
	for i, s := range part.sets {
		if known[s.Name] == nil {
			known[s.Name] = s
		}
		part.sets[i] = known[s.Name]
	}
	return part
}

// auditRules returns the rules of the common chain without the files of custom rules that drop.
func auditRules(d engine.Direction, o Options) []engine.Rule {
	common := o.Common(d)
	for _, file := range []*custom.Rules{&common.V4, &common.V6} {
		if slices.ContainsFunc(file.Rules, drops) {
			*file = custom.Rules{}
		}
	}
	return commonChain(d, o, "").Rules
}

// drops reports whether a custom rule may drop a packet.
func drops(r custom.Rule) bool {
	verdict := expr.Summarize(r.Statements).Verdict
	return verdict == "drop" || verdict == "reject"
}

// allowed is a set of addresses whose packets pass, with the matches that look it up.
// An empty list of addresses has no set and no rule.
type allowed struct {
	set   *engine.Set
	match expr.Statement
	reply expr.Statement // the match of replies
}

// allowed returns the sets of the flags --allow-…-prefix for a direction.
func (c *Common) allowed(d engine.Direction) []allowed {
	var list []allowed
	for _, side := range []struct {
		field engine.AddressField
		addrs sets.Addrs
		match func(sets.Family, string) expr.Statement
		reply func(sets.Family, string) expr.Statement
	}{
		{engine.SourceField, c.Sources, expr.SourceIn, expr.DestinationIn},
		{engine.DestinationField, c.Destinations, expr.DestinationIn, expr.SourceIn},
	} {
		for _, f := range sets.Families {
			if side.addrs.Len(f) == 0 {
				continue
			}
			name := engine.AllowSet(d, side.field, f)
			list = append(list, allowed{
				set:   &engine.Set{Name: name, Elements: engine.Addrs{Family: f, Addrs: side.addrs}},
				match: side.match(f, name),
				reply: side.reply(f, name),
			})
		}
	}
	return list
}

// customChain returns a chain with the rules of a file. Only packets of the file's family are sent there.
func customChain(table expr.TableFamily, name string, rules []custom.Rule) *engine.Chain {
	chain := &engine.Chain{Name: name}
	for _, r := range rules {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: table.Replace(r.Statements), Comment: r.Comment})
	}
	return chain
}

// customSet returns a list of a custom rule as a set.
// Its elements never change.
func customSet(s custom.Set) *engine.Set {
	if s.Family != 0 {
		return &engine.Set{Name: s.Name, Elements: engine.Addrs{Family: s.Family, Addrs: s.Addrs}}
	}
	return &engine.Set{Name: s.Name, Elements: engine.Numbers{Type: s.Type, Numbers: s.Numbers}}
}

// userRules returns the last rules of the common chain or, with the prefix of replies, of its counterpart: the prefixes
// that pass, and the jumps to custom rules.
func (c *Common) userRules(d engine.Direction, prefix string) []engine.Rule {
	replies := prefix == engine.RepliesPrefix
	var rules []engine.Rule
	for _, a := range c.allowed(d) {
		match := a.match
		if replies {
			match = a.reply
		}
		rules = append(rules, engine.Rule{Statements: []expr.Statement{match, expr.Accept()}})
	}
	for _, f := range sets.Families {
		list := c.Custom(f).Rules
		if replies {
			list = c.Custom(f).Replies
		}
		if len(list) > 0 {
			jump := expr.Jump(prefix + engine.CustomChain(d, f))
			rules = append(rules, engine.Rule{Statements: []expr.Statement{expr.IsFamily(f), jump}})
		}
	}
	return rules
}
