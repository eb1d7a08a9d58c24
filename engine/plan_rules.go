package engine

import (
	"slices"
	"time"
)

// diffRules keeps the rules that alignRules pairs, deletes the other rules of have by handle, and adds the other rules of
// want at their places. Where that costs the kernel more, it deletes all rules at once and adds all of want. It returns
// false when the handles are not those of have: then the table is replaced.
func (p *plan) diffRules(have *Chain, handles []uint64, want *Chain) bool {
	if len(handles) != len(have.Rules) {
		return false
	}
	if slices.Contains(handles, 0) {
		return false
	}
	kept := alignRules(have.Rules, want.Rules)
	if rewritingIsCheaper(kept, len(want.Rules)) {
		p.rules = append(p.rules, ruleChange{chain: have.Name, place: allGone})
		p.newChain(want)
		return true
	}
	next := 0 // the first rule of want that has no place yet
	follow := ruleChange{place: atStart}
	wantHandles := make([]uint64, len(want.Rules))
	for i, w := range kept {
		if w < 0 {
			p.rules = append(p.rules, ruleChange{chain: have.Name, place: gone, handle: handles[i]})
			continue
		}
		p.insertRules(want, next, w, follow)
		wantHandles[w] = handles[i]
		next, follow = w+1, ruleChange{place: afterHandle, handle: handles[i]}
	}
	p.appendRules(want, next)
	p.setHandles(want.Name, wantHandles)
	return true
}

// rewritingIsCheaper reports whether the kernel needs less time to write the whole chain again than to change it in place.
// The kernel finds a rule by its handle in a list, so many changes in a long chain take quadratic time.
func rewritingIsCheaper(kept []int, want int) bool {
	keeps := 0
	for _, w := range kept {
		if w >= 0 {
			keeps++
		}
	}
	changes := len(kept) + want - 2*keeps
	return time.Duration(changes)*time.Duration(len(kept))/2*costRuleWalk > time.Duration(keeps)*costRule
}

// insertRules puts the rules from..to-1 at one place. It begins with the last rule: each further rule then comes before it.
func (p *plan) insertRules(want *Chain, from, to int, where ruleChange) {
	for i := to - 1; i >= from; i-- {
		where.chain, where.rule, where.index = want.Name, &want.Rules[i], i
		p.rules = append(p.rules, where)
	}
}

// equal compares texts: equal texts are equal bytecode (see expr.Statement).
func (r *Rule) equal(o *Rule) bool {
	if len(r.Statements) != len(o.Statements) || r.Comment != o.Comment {
		return false
	}
	for i := range r.Statements {
		if r.Statements[i].Text != o.Statements[i].Text {
			return false
		}
	}
	return true
}
