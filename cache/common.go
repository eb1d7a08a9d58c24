package cache

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Common is what the user wants of every isolated interface in one direction, before any policy is looked at.
type Common struct {
	Sources, Destinations sets.Addrs // packets from, or to, one of these pass
	V4, V6                custom.Rules
}

func (o *Options) common(d direction) *Common {
	if d == ingress {
		return &o.Ingress
	}
	return &o.Egress
}

func (c *Common) custom(f sets.Family) custom.Rules {
	if f == sets.V4 {
		return c.V4
	}
	return c.V6
}

// commonPart is what the tables of all pods share in one direction.
type commonPart struct {
	chains  []*engine.Chain
	replies []*engine.Chain // for the replies, where established connections can be revoked
	sets    []*engine.Set
}

// commonParts makes it for both directions. Where these have the same set, it is the same pointer.
func commonParts(o Options) [len(directions)]commonPart {
	var parts [len(directions)]commonPart
	known := map[string]*engine.Set{}
	for _, d := range directions {
		part := commonPart{chains: []*engine.Chain{commonChain(d, o, "")}, replies: []*engine.Chain{commonChain(d, o, repliesPrefix)}}
		for _, f := range sets.Families {
			rules := o.common(d).custom(f)
			if len(rules.Rules) > 0 {
				part.chains = append(part.chains, customChain(customChainName(d, f), rules.Rules))
			}
			if len(rules.Replies) > 0 {
				part.replies = append(part.replies, customChain(repliesPrefix+customChainName(d, f), rules.Replies))
			}
			for _, s := range rules.Sets {
				part.sets = append(part.sets, customSet(s))
			}
		}
		for _, a := range o.common(d).allowed(d) {
			part.sets = append(part.sets, a.set)
		}
		for i, s := range part.sets {
			if known[s.Name] == nil {
				known[s.Name] = s
			}
			part.sets[i] = known[s.Name]
		}
		parts[d] = part
	}
	return parts
}

// allowed is a set of addresses whose packets pass, and the match.
type allowed struct {
	set   *engine.Set
	match expr.Statement
	reply expr.Statement // the match of what answers
}

func (c *Common) allowed(d direction) []allowed {
	var list []allowed
	for _, side := range []struct {
		name  string
		addrs sets.Addrs
		match func(sets.Family, string) expr.Statement
		reply func(sets.Family, string) expr.Statement
	}{
		{"source", c.Sources, expr.SourceIn, expr.DestinationIn},
		{"destination", c.Destinations, expr.DestinationIn, expr.SourceIn},
	} {
		for _, f := range sets.Families {
			if side.addrs.Len(f) == 0 {
				continue
			}
			name := "allow-" + d.String() + "-" + side.name + "-" + f.String()
			list = append(list, allowed{
				set:   &engine.Set{Name: name, Elements: engine.Addrs{Family: f, Addrs: side.addrs}},
				match: side.match(f, name),
				reply: side.reply(f, name),
			})
		}
	}
	return list
}

// customChain has a file's rules, which only packets of its family meet.
func customChain(name string, rules []custom.Rule) *engine.Chain {
	chain := &engine.Chain{Name: name}
	for _, r := range rules {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: r.Statements, Comment: r.Comment})
	}
	return chain
}

func customChainName(d direction, f sets.Family) string {
	return "custom-" + f.String() + "-" + d.String()
}

func customSet(s custom.Set) *engine.Set {
	if s.Family != 0 {
		return &engine.Set{Name: s.Name, Elements: engine.Addrs{Family: s.Family, Addrs: s.Addrs}}
	}
	return &engine.Set{Name: s.Name, Elements: engine.Numbers{Type: s.Type, Numbers: s.Numbers}}
}

// userRules ends the common chain, or with the prefix of replies that for them: the prefixes that pass, and the jumps to
// custom rules.
func (c *Common) userRules(d direction, prefix string) []engine.Rule {
	replies := prefix == repliesPrefix
	var rules []engine.Rule
	for _, a := range c.allowed(d) {
		match := a.match
		if replies {
			match = a.reply
		}
		rules = append(rules, engine.Rule{Statements: []expr.Statement{match, expr.Accept()}})
	}
	for _, f := range sets.Families {
		list := c.custom(f).Rules
		if replies {
			list = c.custom(f).Replies
		}
		if len(list) > 0 {
			jump := expr.Jump(prefix + customChainName(d, f))
			rules = append(rules, engine.Rule{Statements: []expr.Statement{expr.IsFamily(f), jump}})
		}
	}
	return rules
}

// Trial is a table with all that the tables of pods share, to find out whether the kernel takes it.
func Trial(o Options) engine.Ruleset {
	var chains []*engine.Chain
	var list []*engine.Set
	parts := commonParts(o)
	for _, d := range directions {
		chains = append(chains, parts[d].chains...)
		base := &engine.Chain{Name: string(d.hook()), Hook: d.hook(), Rules: []engine.Rule{
			{Statements: []expr.Statement{expr.Jump("common-" + d.String())}},
		}}
		if o.RevokeEstablished {
			chains = append(chains, parts[d].replies...)
			base.Rules = append(base.Rules, engine.Rule{
				Statements: append(expr.ReplyOfEstablished(), expr.Jump(repliesPrefix+"common-"+d.opposite().String())),
			})
		}
		chains = append(chains, base)
		list = append(list, parts[d].sets...)
	}
	return engine.NewRuleset(list, chains)
}
