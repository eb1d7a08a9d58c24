package engine

import (
	"hash/maphash"
	"slices"
)

// anchorDepth bounds the recursion of aligner.align, which bounds its time to O(n log n). Real chains need one level:
// nearly all of their rules are unique.
const anchorDepth = 4

// alignRules pairs equal rules of two versions of a chain, in the same order on both sides: for each rule of have it
// returns the index of the rule in want that it is kept as, or -1. It takes O(n log n) time and O(n) memory for any two
// chains, since a tenant decides how long they are. Where the chains differ in rules that occur once, the number of pairs
// is the greatest possible; rules that occur several times may be paired less well.
func alignRules(have, want []Rule) []int {
	kept := make([]int, len(have))
	for i := range kept {
		kept[i] = -1
	}
	keep := func(i, j int) { kept[i] = j }
	all := span{0, len(have), 0, len(want)}
	rest := all.trim(func(i, j int) bool { return have[i].equal(&want[j]) }, keep)
	if rest.isOneSided() {
		return kept
	}
	a := newAligner(have, want, rest, keep)
	a.align(rest, 0)
	return kept
}

// span is a part of both chains: the rules from..to-1 of each.
type span struct{ haveFrom, haveTo, wantFrom, wantTo int }

// isOneSided reports whether one side is empty: no rule is left to pair.
func (s span) isOneSided() bool { return s.haveFrom == s.haveTo || s.wantFrom == s.wantTo }

// trim keeps the equal rules at both ends and returns the span between them. Most changes of a chain touch few rules, so
// little is left for the aligner.
func (s span) trim(equal func(i, j int) bool, keep func(i, j int)) span {
	for !s.isOneSided() && equal(s.haveFrom, s.wantFrom) {
		keep(s.haveFrom, s.wantFrom)
		s.haveFrom, s.wantFrom = s.haveFrom+1, s.wantFrom+1
	}
	for !s.isOneSided() && equal(s.haveTo-1, s.wantTo-1) {
		s.haveTo, s.wantTo = s.haveTo-1, s.wantTo-1
		keep(s.haveTo, s.wantTo)
	}
	return s
}

// aligner pairs the rules of two chains by number: equal rules have the same number.
type aligner struct {
	// have and want have the number of each rule: numbers are compared more cheaply than texts.
	have, want []int
	keep       func(i, j int)

	// Scratch space of pairs, for the span at hand.
	seen   []occurrences // by number
	follow []int         // by index in want: the next rule with the same number, or -1
}

// occurrences counts the rules that share a number.
type occurrences struct {
	inHave, inWant int
	next           int // the first rule of want without a pair, or -1
}

// newAligner numbers the rules of the span.
func newAligner(have, want []Rule, s span, keep func(i, j int)) *aligner {
	n := numbering{seed: maphash.MakeSeed(), first: map[uint64]int{}}
	a := &aligner{have: make([]int, len(have)), want: make([]int, len(want)), follow: make([]int, len(want)), keep: keep}
	for i := s.haveFrom; i < s.haveTo; i++ {
		a.have[i] = n.number(&have[i])
	}
	for j := s.wantFrom; j < s.wantTo; j++ {
		a.want[j] = n.number(&want[j])
	}
	// A number is below the number of different rules, so it is an index here.
	a.seen = make([]occurrences, len(n.rules))
	return a
}

// numbering gives equal rules the same number, from 0 on. Rules with the same hash form a list. The seed of the hash is
// random, so a tenant cannot make the list long.
type numbering struct {
	seed  maphash.Seed
	first map[uint64]int // by hash
	rules []*Rule        // by number
	after []int          // by number: the number of the next rule with the same hash, or -1
}

// number returns the number of a rule. A rule that is equal to no earlier rule gets the next number.
func (n *numbering) number(r *Rule) int {
	hash := r.hash(n.seed)
	first, ok := n.first[hash]
	if !ok {
		first = -1
	}
	for i := first; i >= 0; i = n.after[i] {
		if n.rules[i].equal(r) {
			return i
		}
	}
	n.first[hash] = len(n.rules)
	n.rules, n.after = append(n.rules, r), append(n.after, first)
	return len(n.rules) - 1
}

// hash returns a hash that is equal for equal rules. A zero byte ends the text of each statement, so the same letters
// in other statements have another hash.
func (r *Rule) hash(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for i := range r.Statements {
		h.WriteString(r.Statements[i].Text)
		h.WriteByte(0)
	}
	h.WriteString(r.Comment)
	return h.Sum64()
}

// align pairs the rules of a span: first the unique rules ("anchors"), as many as keep their order, then the rules
// between these pairs, like a patience diff.
func (a *aligner) align(s span, depth int) {
	s = s.trim(func(i, j int) bool { return a.have[i] == a.want[j] }, a.keep)
	if s.isOneSided() || depth > anchorDepth {
		return
	}
	var anchors []pair
	// The last level pairs repeated rules too, and so does a span without a unique rule.
	if depth < anchorDepth {
		anchors = ascending(a.pairs(s, true))
	}
	if len(anchors) == 0 {
		anchors = ascending(a.pairs(s, false))
	}
	// The recursion takes the span before each anchor, and then the span behind the last anchor.
	between := s
	for _, p := range anchors {
		a.keep(p.i, p.j)
		between.haveTo, between.wantTo = p.i, p.j
		a.align(between, depth+1)
		between.haveFrom, between.wantFrom = p.i+1, p.j+1
	}
	between.haveTo, between.wantTo = s.haveTo, s.wantTo
	a.align(between, depth+1)
}

// pair is an index in have and an index in want of two equal rules.
type pair struct{ i, j int }

// pairs returns the pairs of a span, ascending in have: the first occurrence of a rule with its first occurrence in
// want, the second with the second, and so on. With onlyUnique it leaves out the rules that occur twice on a side.
func (a *aligner) pairs(s span, onlyUnique bool) []pair {
	// Earlier spans have left their counts behind, so the entries of this span are cleared first.
	for _, number := range a.have[s.haveFrom:s.haveTo] {
		a.seen[number] = occurrences{next: -1}
	}
	for j := s.wantTo - 1; j >= s.wantFrom; j-- {
		a.seen[a.want[j]] = occurrences{next: -1}
	}
	for _, number := range a.have[s.haveFrom:s.haveTo] {
		a.seen[number].inHave++
	}
	// From the end, so that follow leads from each occurrence to the next.
	for j := s.wantTo - 1; j >= s.wantFrom; j-- {
		o := &a.seen[a.want[j]]
		o.inWant++
		o.next, a.follow[j] = j, o.next
	}
	var pairs []pair
	for i := s.haveFrom; i < s.haveTo; i++ {
		o := &a.seen[a.have[i]]
		if o.next < 0 || onlyUnique && (o.inHave > 1 || o.inWant > 1) {
			continue
		}
		pairs = append(pairs, pair{i, o.next})
		o.next = a.follow[o.next]
	}
	return pairs
}

// ascending returns the longest subsequence of the pairs that ascends in want, too. It is patience sorting: lowest[n] is
// the pair with the lowest j that ends a subsequence of n+1 pairs. An example: of pairs with j = 3, 1, 4 and 2 it returns
// the pairs with 1 and 2.
func ascending(pairs []pair) []pair {
	var lowest []int                    // indexes in pairs
	previous := make([]int, len(pairs)) // by index: the pair before it in its subsequence, or -1
	for n, p := range pairs {
		at, _ := slices.BinarySearchFunc(lowest, p.j, func(m, j int) int { return pairs[m].j - j })
		previous[n] = -1
		if at > 0 {
			previous[n] = lowest[at-1]
		}
		if at == len(lowest) {
			lowest = append(lowest, n)
		} else {
			lowest[at] = n
		}
	}
	// previous leads from the last pair of the longest subsequence back to its first pair.
	longest := make([]pair, len(lowest))
	n := -1
	if len(lowest) > 0 {
		n = lowest[len(lowest)-1]
	}
	for at := len(longest) - 1; at >= 0; at-- {
		longest[at] = pairs[n]
		n = previous[n]
	}
	return longest
}
