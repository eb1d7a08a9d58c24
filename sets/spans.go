package sets

// A tree of spans has a span's start as key and its end as value. The spans in
// it neither overlap nor touch.

// manyTimes is how much larger one set must be than the other for it to be
// cheaper to change it span by span, in O(m log n), than to merge both into a
// new one, in O(n+m).
const manyTimes = 8

// spanOf returns the span that an element is.
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

// insert returns the tree with s added, merged with all that it overlaps or
// touches: t itself if it is all there.
func insert(t *node[uint128], s span) *node[uint128] {
	if e := t.floor(key{addr: s.from}); e != nil {
		if !e.val.less(s.to) {
			return t
		}
		if !e.val.next().less(s.from) {
			s.from = e.key.addr
		}
	}
	// The last span to start in s, or right after it, may end after it.
	if e := t.floor(key{addr: s.to.next()}); e != nil && s.to.less(e.val) {
		s.to = e.val
	}
	// An element that starts at s.from stays, for put to change its end.
	if s.from != s.to {
		t = t.cut(key{addr: s.from.next()}, key{addr: s.to})
	}
	return t.put(key{addr: s.from}, s.to)
}

// remove returns the tree without s: t itself if none of it is there.
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

// splice returns the tree of what is in a before at, and in b from at on.
func splice(a, b *node[uint128], at uint128) *node[uint128] {
	if at == (uint128{}) {
		return b
	}
	a, b = remove(a, span{at, maxUint128}), remove(b, span{uint128{}, at.prev()})
	first := b.first()
	if first == nil {
		return a
	}
	// The first span of b may touch the last one of a: insert merges them.
	return insert(join(a, b.cut(first.key, first.key)), spanOf(first))
}

// union returns the tree of what is in a or b: a itself if b adds nothing.
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

// difference returns the tree of what is in a and not in b: a itself if none of
// b is in it.
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

// mergeUnion builds the tree of what is in the ascending spans of a or b.
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

// mergeDifference builds the tree of what is in the ascending spans of a and
// not in those of b.
func mergeDifference(a, b []span) *node[uint128] {
	var m merger
	for _, s := range a {
		m.addWithout(s, &b)
	}
	return m.tree()
}

// merger builds a tree from spans that come in ascending order of their starts,
// merging those that overlap or touch.
type merger struct {
	builder builder[uint128]
	last    span
	open    bool // last is a span, not yet in the builder
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

// addWithout adds what the ascending spans in *cuts leave of s, and drops from
// *cuts those that end before s does.
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
