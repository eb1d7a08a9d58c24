package engine

import "slices"

// diffRules keeps the longest run of rules that both chains have in the same order, deletes the others by handle and
// puts the new ones in their places. It says false when the handles are not those of have: then the table is replaced.
func (p *plan) diffRules(have *Chain, handles []uint64, want *Chain) bool {
	if len(handles) != len(have.Rules) {
		return false
	}
	if slices.Contains(handles, 0) {
		return false
	}
	next := 0 // the first rule of want that has no place yet
	follow := ruleChange{place: atStart}
	wantHandles := make([]uint64, len(want.Rules))
	for i, w := range commonRules(have.Rules, want.Rules) {
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

// insertRules puts the rules from..to-1 at one place. The last goes first: each later one then comes before it.
func (p *plan) insertRules(want *Chain, from, to int, where ruleChange) {
	for i := to - 1; i >= from; i-- {
		where.chain, where.rule, where.index = want.Name, &want.Rules[i], i
		p.rules = append(p.rules, where)
	}
}

// commonRules is the longest common subsequence: for each rule of have the index in want that it is kept as, or -1.
// What both ends share is passed over first; the rest is small, or one side of it empty, in every change but the first.
func commonRules(have, want []Rule) []int {
	kept := make([]int, len(have))
	for i := range kept {
		kept[i] = -1
	}
	start := 0
	for start < len(have) && start < len(want) && have[start].equal(&want[start]) {
		kept[start] = start
		start++
	}
	h, w := len(have), len(want)
	for h > start && w > start && have[h-1].equal(&want[w-1]) {
		h, w = h-1, w-1
		kept[h] = w
	}
	longestCommon(have[start:h], want[start:w], func(i, j int) { kept[start+i] = start + j })
	return kept
}

func longestCommon(have, want []Rule, keep func(i, j int)) {
	if len(have) == 0 || len(want) == 0 {
		return
	}
	row := len(want) + 1
	length := make([]int, (len(have)+1)*row) // length[i*row+j]: of have[i:] and want[j:]
	for i := len(have) - 1; i >= 0; i-- {
		for j := len(want) - 1; j >= 0; j-- {
			if have[i].equal(&want[j]) {
				length[i*row+j] = length[(i+1)*row+j+1] + 1
			} else {
				length[i*row+j] = max(length[(i+1)*row+j], length[i*row+j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(have) && j < len(want); {
		switch {
		case have[i].equal(&want[j]):
			keep(i, j)
			i, j = i+1, j+1
		case length[(i+1)*row+j] >= length[i*row+j+1]:
			i++
		default:
			j++
		}
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
