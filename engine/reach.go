package engine

import "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"

// reach is the part of a ruleset that is in force: the chains that packets reach from base chains, and the sets that the
// rules of these chains look up. A change elsewhere has no effect on packets.
type reach struct{ chains, sets map[string]bool }

// reachOf returns the part of a ruleset that is in force.
func reachOf(rs Ruleset) reach {
	r := newReach()
	for _, c := range rs.Chains {
		if c.Hook != HookNone {
			r.follow(rs, c.Name, nil)
		}
	}
	return r
}

// newReach returns a reach without chains and sets.
func newReach() reach { return reach{chains: map[string]bool{}, sets: map[string]bool{}} }

// follow adds a chain, and the chains and sets that packets reach from it. It calls visit, unless nil, for each rule.
func (r reach) follow(rs Ruleset, name string, visit func(*Rule)) {
	// A list of names instead of recursion: chains may be nested deeply, and a chain may be reached in several ways.
	for names := []string{name}; len(names) > 0; {
		name, names = names[len(names)-1], names[:len(names)-1]
		c := rs.chain(name)
		if c == nil || r.chains[name] {
			continue
		}
		r.chains[name] = true
		for i := range c.Rules {
			rule := &c.Rules[i]
			s := rule.summary()
			for _, set := range s.Sets {
				r.sets[set] = true
			}
			if s.Chain != "" {
				names = append(names, s.Chain)
			}
			if visit != nil {
				visit(rule)
			}
		}
	}
}

// widens reports whether a rule can only allow more packets, unless the chain that it jumps to drops. A goto does not
// widen: it takes the rules behind it away from the packet.
func (r *Rule) widens() bool {
	switch r.summary().Verdict {
	case "", "accept", "jump":
		return true
	}
	return false
}

// separable returns the names of the sets whose elements can change in other batches than the rules. All rules that look
// up a separable set accept the packets whose key is in it, and packets reach the same of these rules before and after the
// change. So each element allows the same packets whatever the other changes are: while the set holds both its old and
// its new elements, it allows the packets that have or want allows, and no others.
//
// No set is separable if a rule that drops changes, or a set that such a rule looks up: the rule may drop packets that
// rules behind it would accept.
func separable(have, want Ruleset) map[string]bool {
	names, tied := map[string]bool{}, map[string]bool{}
	if !tieChanged(have, want, tied) {
		return nil
	}
	for _, rs := range []Ruleset{have, want} {
		for _, s := range lookupsInForce(rs) {
			for _, set := range s.Sets {
				names[set] = true
				if s.Negated || s.Verdict != "accept" {
					if !have.set(set).holdsAs(want.set(set)) {
						return nil
					}
					tied[set] = true
				}
			}
		}
	}
	for set := range tied {
		delete(names, set)
	}
	return names
}

// lookupsInForce returns the summaries of the rules in force that look up sets. A rule that is reached from several chains
// is listed once.
func lookupsInForce(rs Ruleset) (list []expr.Summary) {
	reached := newReach()
	for _, c := range rs.Chains {
		if c.Hook == HookNone {
			continue
		}
		reached.follow(rs, c.Name, func(r *Rule) {
			if s := r.summary(); len(s.Sets) > 0 {
				list = append(list, s)
			}
		})
	}
	return list
}

// holdsAs reports whether two versions of a set, either of which may be nil, hold the same elements.
// Two nil sets do; a nil set and another set do not.
func (s *Set) holdsAs(other *Set) bool {
	if s == nil || other == nil || s == other {
		return s == other
	}
	d, ok := other.since(s)
	return ok && d.isEmpty()
}

// tieChanged adds the sets whose use differs between the rulesets: the sets that changed rules look up, and the sets that
// packets reach by jumps of changed rules. It returns false if any of these rules does not widen.
func tieChanged(have, want Ruleset, tied map[string]bool) bool {
	ok := true
	haveReach, wantReach := reachOf(have), reachOf(want)
	mergeByName(have.Chains, want.Chains, func(c *Chain) string { return c.Name }, func(h, w *Chain) {
		if h == w {
			return
		}
		inHave, inWant := h != nil && haveReach.chains[h.Name], w != nil && wantReach.chains[w.Name]
		switch {
		case inHave && inWant:
			deleted, added := changedRules(h.Rules, w.Rules)
			ok = tieRules(have, deleted, tied) && tieRules(want, added, tied) && ok
		case inHave && h.Hook != HookNone:
			ok = tieRules(have, pointers(h.Rules), tied) && ok
		case inWant && w.Hook != HookNone:
			ok = tieRules(want, pointers(w.Rules), tied) && ok
		}
	})
	return ok
}

// tieRules does the work of tieChanged for the changed rules of a ruleset.
func tieRules(rs Ruleset, rules []*Rule, tied map[string]bool) bool {
	ok, reached := true, newReach()
	for _, r := range rules {
		ok = ok && r.widens()
		s := r.summary()
		for _, set := range s.Sets {
			tied[set] = true
		}
		reached.follow(rs, s.Chain, func(r *Rule) { ok = ok && r.widens() })
	}
	for set := range reached.sets {
		tied[set] = true
	}
	return ok
}

// changedRules returns the rules that the plan for two versions of a chain deletes and adds.
// The pointers lead into the lists.
func changedRules(have, want []Rule) (deleted, added []*Rule) {
	isKept := make([]bool, len(want))
	for i, w := range alignRules(have, want) {
		if w < 0 {
			deleted = append(deleted, &have[i])
		} else {
			isKept[w] = true
		}
	}
	for i := range want {
		if !isKept[i] {
			added = append(added, &want[i])
		}
	}
	return deleted, added
}

// pointers returns pointers to the rules of a list.
func pointers(rules []Rule) []*Rule {
	list := make([]*Rule, len(rules))
	for i := range rules {
		list[i] = &rules[i]
	}
	return list
}
