package engine

import (
	"slices"
	"time"
)

// diffRules keeps the rules that alignRules pairs, deletes the other rules of have by handle, and adds the other rules
// of want at their places. If that costs the kernel more, it deletes all rules at once and adds all rules of want. It
// returns false if the handles do not belong to the rules of have; the table is then replaced.
func (p *plan) diffRules(have *Chain, handles []uint64, want *Chain) bool {
	if len(handles) != len(have.Rules) {
		return false
	}
	// A handle of 0 is a rule whose echo never came.
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
		// A rule that is not kept goes away by its handle.
		if w < 0 {
			p.rules = append(p.rules, ruleChange{chain: have.Name, place: gone, handle: handles[i]})
			continue
		}
		// The rules of want between two kept rules go behind the first of the two.
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
	// The number of rules that stay where they are.
	for _, w := range kept {
		if w >= 0 {
			keeps++
		}
	}
	// Each change makes the kernel walk half of the chain on average.
	changes := len(kept) + want - 2*keeps
	return time.Duration(changes)*time.Duration(len(kept))/2*costRuleWalk > time.Duration(keeps)*costRule
}

// insertRules puts the rules from..to-1 at the same place: the start of the chain, or behind a kept rule. It begins with
// the last of them, because each further rule goes in front of the rules that are there already.
// An example: inserting A, B and C behind K sends C, B, A, each directly behind K.
func (p *plan) insertRules(want *Chain, from, to int, where ruleChange) {
	for i := to - 1; i >= from; i-- {
		where.chain, where.rule, where.index = want.Name, &want.Rules[i], i
		p.rules = append(p.rules, where)
	}
}

// equal compares the texts of the statements: equal texts are equal bytecode (see expr.Statement).
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
