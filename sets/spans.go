package sets

// A tree of spans has a span's start as key and its end as value. The spans in
// it neither overlap nor touch.

// manyTimes is the ratio of sizes from which on the larger set is changed span
// by span, in O(m log n). Below it, merging both sets into a new tree, in
// O(n+m), is cheaper.
const manyTimes = 8

// spanOf returns the span that a node holds.
func spanOf(n *node[uint128]) span { return span{n.key.addr, n.val} }

// spansOf returns all spans of a tree in ascending order.
func spansOf(t *node[uint128]) []span {
	spans := make([]span, 0, t.count())
	t.each(func(n *node[uint128]) bool {
		spans = append(spans, spanOf(n))
		return true
	})
	return spans
}

// insert returns the tree with s added, and merged with all spans that it
// overlaps or touches. It returns t itself if t already covers s.
func insert(t *node[uint128], s span) *node[uint128] {
	if e := t.floor(key{addr: s.from}); e != nil {
		if !e.val.less(s.to) {
			return t
		}
		if !e.val.next().less(s.from) {
			s.from = e.key.addr
		}
	}
	// The last span that starts in s, or right after s, may end after s.
	if e := t.floor(key{addr: s.to.next()}); e != nil && s.to.less(e.val) {
		s.to = e.val
	}
	// A span that starts at s.from is not cut: put changes its end.
	if s.from != s.to {
		t = t.cut(key{addr: s.from.next()}, key{addr: s.to})
	}
	return t.put(key{addr: s.from}, s.to)
}

// remove returns the tree without s. It returns t itself if t has no address of
// s.
func remove(t *node[uint128], s span) *node[uint128] {
	last := t.floor(key{addr: s.to})
	if last == nil || last.val.less(s.from) {
		return t
	}
	var first *node[uint128]
	if s.from != (uint128{}) {
		first = t.floor(key{addr: s.from.prev()})
	}
	t = t.cut(key{addr: s.from}, key{addr: s.to})
	if first != nil && !first.val.less(s.from) {
		t = t.put(first.key, s.from.prev())
	}
	if s.to.less(last.val) {
		t = t.put(key{addr: s.to.next()}, last.val)
	}
	return t
}

// splice returns the tree of the addresses of a before at, and of b from at on.
func splice(a, b *node[uint128], at uint128) *node[uint128] {
	if at == (uint128{}) {
		return b
	}
	a, b = remove(a, span{at, maxUint128}), remove(b, span{uint128{}, at.prev()})
	first := b.first()
	if first == nil {
		return a
	}
	// The first span of b may touch the last span of a: insert merges them.
	return insert(join(a, b.cut(first.key, first.key)), spanOf(first))
}

// union returns the tree of the addresses in a or b. It returns a itself if b
// adds nothing.
func union(a, b *node[uint128]) *node[uint128] {
	large, small := a, b
	if large.count() < small.count() {
		large, small = small, large
	}
	var u *node[uint128]
	if small.count() <= large.count()/manyTimes {
		u = large
		small.each(func(n *node[uint128]) bool {
			u = insert(u, spanOf(n))
			return true
		})
	} else if a != b {
		u = mergeUnion(spansOf(a), spansOf(b))
	}
	if a == b || u.equal(a) {
		return a
	}
	return u
}

// difference returns the tree of the addresses in a and not in b. It returns a
// itself if a has no address of b.
func difference(a, b *node[uint128]) *node[uint128] {
	if a == nil || a == b {
		return nil
	}
	if b.count() <= a.count()/manyTimes {
		b.each(func(n *node[uint128]) bool {
			a = remove(a, spanOf(n))
			return true
		})
		return a
	}
	if d := mergeDifference(spansOf(a), spansOf(b)); !d.equal(a) {
		return d
	}
	return a
}

// mergeUnion builds the tree of the addresses in a or b, from ascending spans.
func mergeUnion(a, b []span) *node[uint128] {
	var m merger
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].from.less(b[0].from) {
			m.add(a[0])
			a = a[1:]
		} else {
			m.add(b[0])
			b = b[1:]
		}
	}
	return m.tree()
}

// mergeDifference builds the tree of the addresses in a and not in b, from
// ascending spans.
func mergeDifference(a, b []span) *node[uint128] {
	var m merger
	for _, s := range a {
		m.addWithout(s, &b)
	}
	return m.tree()
}

// merger builds a tree from spans in ascending order of their starts. It merges
// spans that overlap or touch.
type merger struct {
	builder builder[uint128]
	last    span
	open    bool // last holds a span that is not yet in the builder
}

// add adds a span.
func (m *merger) add(s span) {
	if m.open && !m.last.to.next().less(s.from) {
		if m.last.to.less(s.to) {
			m.last.to = s.to
		}
		return
	}
	m.flush()
	m.last, m.open = s, true
}

// addWithout adds the parts of s that no span in *cuts covers. The cuts are
// ascending. It drops the cuts that end before s does, since the next span
// starts behind them.
func (m *merger) addWithout(s span, cuts *[]span) {
	for ; len(*cuts) > 0; *cuts = (*cuts)[1:] {
		c := (*cuts)[0]
		if s.to.less(c.from) {
			break
		}
		if s.from.less(c.from) {
			m.add(span{s.from, c.from.prev()})
		}
		if !c.to.less(s.to) {
			return
		}
		if !c.to.less(s.from) {
			s.from = c.to.next()
		}
	}
	m.add(s)
}

// flush hands the last span to the builder.
func (m *merger) flush() {
	if m.open {
		m.builder.add(key{addr: m.last.from}, m.last.to)
		m.open = false
	}
}

// tree returns the tree of all spans.
func (m *merger) tree() *node[uint128] {
	m.flush()
	return m.builder.tree()
}
