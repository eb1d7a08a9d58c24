package engine

import (
	"iter"
	"time"
)

// steps returns the intermediate rulesets from have to want, and want at the end. The batch for each step takes about
// the budget of kernel time. Apply may stop after any step: the intermediate ruleset allows no packet that both have
// and want drop, and drops no packet that both allow.
//
// The stages are, in this order:
//
//  1. Sets that no rule in force looks up are made and filled.
//  2. Chains that no rule in force leads to are made and filled.
//  3. Separable sets in force get their new elements, if all changes of elements exceed the budget.
//  4. Chains in force change, with the other sets in force, in one batch of any size.
//  5. Separable sets lose their old elements.
//  6. Chains and sets that are not wanted are deleted.
//
// A table that must be replaced may allow everything. The first step replaces it by a table that allows nearly nothing
// (see lockdown); the stages follow.
func steps(have *table, want Ruleset, flags uint32, budget time.Duration) iter.Seq[Ruleset] {
	return func(yield func(Ruleset) bool) {
		w := way{budget: budget, left: budget, have: have, now: have.ruleset, want: want, yield: yield}
		if !w.begin(flags) {
			return
		}
		w.inForce = reachOf(w.now)
		for _, stage := range []func() bool{w.fillSets, w.fillChains, w.switchOver, w.emptyChains, w.deleteChains, w.deleteSets} {
			if !stage() || !w.flush() {
				return
			}
		}
		w.emit(want)
	}
}

// way collects changes into steps. Its methods return false if the caller of steps has stopped the iteration.
type way struct {
	budget    time.Duration
	have      *table
	now, want Ruleset // now is the result of the last step; want is the end
	inForce   reach   // the part of the ruleset that is in force before the switch
	yield     func(Ruleset) bool

	// The step that is being collected: new sets and chains, and new versions of existing sets and chains, by name.
	sets   []*Set
	chains []*Chain
	left   time.Duration // the part of the budget that the step has left
}

// emit makes a whole ruleset the next step, and starts the budget of another step.
func (w *way) emit(next Ruleset) bool {
	w.now, w.left = next, w.budget
	return w.yield(next)
}

// isPending reports whether changes are collected that no step has yet.
func (w *way) isPending() bool { return len(w.sets) > 0 || len(w.chains) > 0 }

// flush makes the collected changes the next step.
func (w *way) flush() bool {
	if !w.isPending() {
		return true
	}
	next := Ruleset{Sets: override(w.now.Sets, w.sets, setName), Chains: override(w.now.Chains, w.chains, chainName)}
	w.sets, w.chains = nil, nil
	return w.emit(next)
}

// spend takes the cost of a change off the budget. If the change does not fit, it starts the next step.
func (w *way) spend(cost time.Duration) bool {
	if w.left < cost && !w.flush() {
		return false
	}
	w.left -= cost
	return true
}

// prices returns the prices in the table as it is after the collected changes.
func (w *way) prices() prices { return pricesIn(w.have, len(w.now.Sets)+len(w.sets)) }

// begin emits the first step if the table must be replaced or taken over. The kernel accepts no new base chain in the
// batch that takes a table over, so the take-over is a step of its own.
// Without a replacement and without a take-over, the first step is the first change.
func (w *way) begin(flags uint32) bool {
	switch p := makePlan(w.have, w.want, flags); {
	case p.deleteTable:
		closed, ok := lockdown(w.want)
		if !ok {
			w.emit(w.want)
			return false
		}
		return w.emit(closed)
	case p.takeOver:
		return w.emit(w.now)
	}
	return true
}

// fillSets makes and fills the wanted sets that are not in force.
func (w *way) fillSets() bool {
	for _, s := range w.want.Sets {
		have := w.now.set(s.Name)
		// An equal set needs nothing. A set in force changes in switchOver.
		if have == s || have != nil && w.inForce.sets[s.Name] {
			continue
		}
		if have == nil {
			if !w.spend(w.prices().newSet()) {
				return false
			}
			have = s.empty()
		}
		if !w.bring(have, s) {
			return false
		}
	}
	return true
}

// bring changes a set to another version, in as many steps as the number of elements needs.
func (w *way) bring(have, target *Set) bool {
	for {
		price := w.prices()
		least := max(leastChanges, size(target.Elements)/mostParts)
		fit := int((w.left - price.touch(target)) / costElement)
		// Too little of the budget is left to be worth the rebuild of the lookup array: the rest goes into the next
		// step.
		if fit < least && w.isPending() {
			if !w.flush() {
				return false
			}
			continue
		}
		// A part of at least least elements, even beyond the budget: otherwise a very large set would never get done.
		part, changes := have.toward(target, max(fit, least))
		w.left -= price.elements(target, changes)
		w.sets = append(w.sets, part)
		if part == target {
			return true
		}
		if !w.flush() {
			return false
		}
		have = part
	}
}

// A step changes at least leastChanges elements of a set, and at least a 20th of the set (mostParts): the kernel rebuilds
// the lookup array of the whole set for a change of any size.
const (
	leastChanges = 8
	mostParts    = 20
)

// fillChains makes and fills the wanted regular chains that are not in force. It makes all of them before it adds a rule,
// since their rules may jump to each other.
func (w *way) fillChains() bool {
	for _, c := range w.want.Chains {
		// Base chains come with the switch, since they are in force at once.
		if c.Hook == HookNone && w.now.chain(c.Name) == nil {
			if !w.spend(w.prices().chain()) {
				return false
			}
			w.chains = append(w.chains, &Chain{Name: c.Name})
		}
	}
	if !w.flush() {
		return false
	}
	for _, c := range w.want.Chains {
		if have := w.now.chain(c.Name); c.Hook == HookNone && have != c && !w.inForce.chains[c.Name] {
			if !w.write(have, c) {
				return false
			}
		}
	}
	return true
}

// write changes a chain to another version. Each step adds rules at the end, as many as the budget allows.
func (w *way) write(have, target *Chain) bool {
	n := commonStart(have.Rules, target.Rules)
	if n < len(have.Rules) { // an earlier Apply for another version stopped here
		if !w.spend(time.Duration(len(have.Rules)) * costRuleGone) {
			return false
		}
		n = 0
	}
	for n < len(target.Rules) {
		price := w.prices().rule()
		if !w.spend(price) {
			return false
		}
		// The first rule fits; more says how many fit beside it.
		more := min(max(0, int(w.left/price)), len(target.Rules)-n-1)
		w.left -= time.Duration(more) * price
		n += 1 + more
		if n == len(target.Rules) {
			break
		}
		w.chains = append(w.chains, &Chain{Name: target.Name, Rules: target.Rules[:n]})
		if !w.flush() {
			return false
		}
	}
	w.chains = append(w.chains, target)
	return true
}

// commonStart returns the number of equal rules at the start of both chains.
func commonStart(have, want []Rule) int {
	n := 0
	for n < len(have) && n < len(want) && have[n].equal(&want[n]) {
		n++
	}
	return n
}

// switchOver changes the chains and sets in force, in a single step between two series: separable sets grow before it,
// and shrink after it.
func (w *way) switchOver() bool {
	apart := w.apart()
	for _, s := range apart.Sets {
		have := w.now.set(s.Name)
		// Both the old and the new elements.
		if !w.bring(have, have.with(s)) {
			return false
		}
	}
	if !w.flush() {
		return false
	}
	next := Ruleset{
		Sets:   override(w.now.Sets, w.want.Sets, setName),
		Chains: override(w.now.regular(), w.want.Chains, chainName),
	}
	// Separable sets keep all their elements in the switch.
	for i, s := range next.Sets {
		if apart.set(s.Name) != nil {
			next.Sets[i] = w.now.set(s.Name)
		}
	}
	if !w.emit(next) {
		return false
	}
	for _, s := range apart.Sets {
		if !w.bring(w.now.set(s.Name), s) {
			return false
		}
	}
	return true
}

// apart returns the separable sets that change, to be changed outside the switch. It returns none if the changes of all
// sets in force fit the budget.
func (w *way) apart() (apart Ruleset) {
	var changed []*Set
	var cost time.Duration
	for _, s := range w.want.Sets {
		have := w.now.set(s.Name)
		if have == s || !w.inForce.sets[s.Name] {
			continue
		}
		if d, ok := s.since(have); ok && !d.isEmpty() {
			changed = append(changed, s)
			cost += w.prices().elements(s, d.len())
		}
	}
	if cost <= w.budget {
		return Ruleset{}
	}
	ok := separable(w.now, w.want)
	for _, s := range changed {
		if ok[s.Name] {
			apart.Sets = append(apart.Sets, s)
		}
	}
	return apart
}

// regular returns the chains that are not base chains.
func (r Ruleset) regular() []*Chain {
	var list []*Chain
	for _, c := range r.Chains {
		if c.Hook == HookNone {
			list = append(list, c)
		}
	}
	return list
}

// emptyChains deletes the rules of all obsolete chains before deleteChains deletes the chains: the kernel does not delete a
// chain while a rule jumps to it.
func (w *way) emptyChains() bool {
	for _, c := range w.now.Chains {
		if w.want.chain(c.Name) != nil || len(c.Rules) == 0 {
			continue
		}
		if !w.spend(w.prices().table + time.Duration(len(c.Rules))*costRuleGone) {
			return false
		}
		w.chains = append(w.chains, &Chain{Name: c.Name, Hook: c.Hook})
	}
	return true
}

// deleteChains deletes obsolete chains, as many in a step as the budget allows.
func (w *way) deleteChains() bool {
	most := int(w.budget/(2*w.prices().chain())) + 1 // one message empties the chain, another deletes it
	for {
		next := w.now
		next.Chains = without(w.now.Chains, most, func(c *Chain) bool { return w.want.chain(c.Name) == nil })
		if len(next.Chains) == len(w.now.Chains) {
			return true
		}
		if !w.emit(next) {
			return false
		}
	}
}

// deleteSets deletes obsolete sets, as many in a step as the budget allows. The price falls with the number of sets.
func (w *way) deleteSets() bool {
	for {
		// At least a single set, however small the budget is.
		most := int(w.budget/w.prices().deleteSet()) + 1
		next := w.now
		next.Sets = without(w.now.Sets, most, func(s *Set) bool { return w.want.set(s.Name) == nil })
		if len(next.Sets) == len(w.now.Sets) {
			return true
		}
		if !w.emit(next) {
			return false
		}
	}
}

// without returns the list without its first obsolete members. It removes at most the given number of them.
func without[T any](list []*T, most int, isObsolete func(*T) bool) []*T {
	var kept []*T
	for _, t := range list {
		if most > 0 && isObsolete(t) {
			most--
			continue
		}
		kept = append(kept, t)
	}
	return kept
}

// setName and chainName are the keys of mergeByName and override.
func setName(s *Set) string     { return s.Name }
func chainName(c *Chain) string { return c.Name }

// override returns the union of two lists that are sorted by name. For a name in both lists, it takes the member of by.
func override[T any](list, by []*T, name func(*T) string) []*T {
	out := make([]*T, 0, len(list)+len(by))
	mergeByName(list, by, name, func(t, o *T) {
		if o == nil {
			o = t
		}
		out = append(out, o)
	})
	return out
}
