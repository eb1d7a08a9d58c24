package engine

import "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"

// Lockdown returns small tables that isolate the interfaces that these tables isolate. They drop all packets of these interfaces,
// but for established connections if these tables keep them. Interfaces whose policies are all in audit mode stay open. It returns
// false if a table does not have the form for this.
func (t *Tables) Lockdown() (closed Tables, ok bool) {
	for f, rs := range t {
		if rs.IsEmpty() {
			continue
		}
		if closed[f], ok = lockdown(rs); !ok {
			return Tables{}, false
		}
	}
	return closed, ok
}

// lockdown returns a small ruleset that isolates the interfaces that want isolates. It keeps the base chains, and the
// chains that their rules go to, without rules that need a set or another chain. So it drops all packets of these
// interfaces, but for established connections if want keeps them. lockdown returns false if want does not have this form.
func lockdown(want Ruleset) (Ruleset, bool) {
	var chains []*Chain
	isolating := map[string]bool{}
	for _, base := range want.Chains {
		if base.Hook == HookNone {
			continue
		}
		chains = append(chains, base)
		for i := range base.Rules {
			s := base.Rules[i].summary()
			switch {
			case len(s.Sets) > 0:
				return Ruleset{}, false
			case s.Verdict == "goto":
				isolating[s.Chain] = true
			case s.Verdict != "accept" && s.Verdict != "drop":
				return Ruleset{}, false
			}
		}
	}
	// The chain of an interface must end with a drop, or the interface would not be isolated. In audit mode it ends with an accept of
	// all packets: want lets everything pass there, and so may the small ruleset.
	for name := range isolating {
		c := want.chain(name)
		if c == nil || len(c.Rules) == 0 {
			return Ruleset{}, false
		}
		last := &c.Rules[len(c.Rules)-1]
		if verdict := last.summary().Verdict; verdict != "drop" && (verdict != "accept" || !expr.IsUnconditional(last.Statements)) {
			return Ruleset{}, false
		}
		// The other chains, and all sets, are left out.
		chains = append(chains, locked(c))
	}
	return NewRuleset(nil, chains), len(chains) > 0
}

// locked returns the chain without the rules that look up sets or lead to other chains. Behind the first omitted rule it
// keeps only drops: the omitted rule may drop packets that a later rule accepts.
func locked(c *Chain) *Chain {
	closed := &Chain{Name: c.Name}
	omitted := false
	for _, r := range c.Rules {
		s := r.summary()
		switch {
		case s.Chain != "" || len(s.Sets) > 0:
			omitted = true
		case !omitted || s.Verdict == "drop":
			closed.Rules = append(closed.Rules, r)
		}
	}
	return closed
}
