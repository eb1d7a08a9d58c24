package sets

import (
	"cmp"
	"hash/maphash"
)

// key orders the elements of a tree, first by addr, then by sub.
type key struct {
	addr uint128
	sub  uint32 // protocol and port of an Endpoint; 0 in trees of spans
}

// compare orders keys.
func (k key) compare(l key) int {
	if c := k.addr.compare(l.addr); c != 0 {
		return c
	}
	return cmp.Compare(k.sub, l.sub)
}

// node is a node of a persistent treap, and stands for the tree below it. nil is
// the empty tree. A node never changes after it became part of a tree, so trees
// share nodes freely.
//
// A treap is a search tree by key and a heap by priority (Seidel and Aragon,
// "Randomized Search Trees", 1996). The two orders determine its shape. Here the
// priority is a hash of the key, so the shape follows from the keys alone, not
// from the order of operations. diff and equal rely on this: where two versions
// have the same keys, they have the same shape. val does not affect the shape.
type node[V comparable] struct {
	key         key
	val         V
	left, right *node[V]
	prio, size  uint32
}

// seed makes priorities unpredictable, so that a tenant cannot choose addresses
// that make a tree deep and slow.
var seed = maphash.MakeSeed()

// priority returns the priority of a key, the same for the whole process.
func priority(k key) uint32 { return uint32(maphash.Comparable(seed, k)) }

// over reports whether a node of priority p and key k belongs above n. If the
// priorities are equal, the lower key is above, so that the shape stays unique.
func over[V comparable](p uint32, k key, n *node[V]) bool {
	return p > n.prio || p == n.prio && k.compare(n.key) < 0
}

// count returns the number of elements, in O(1).
func (n *node[V]) count() int {
	if n == nil {
		return 0
	}
	return int(n.size)
}

// resize sets n's size from its children. n must not be part of a tree yet.
func (n *node[V]) resize() {
	n.size = uint32(1 + n.left.count() + n.right.count())
}

// with returns a copy of n with the given children. It returns n itself if n has
// these children already.
func (n *node[V]) with(left, right *node[V]) *node[V] {
	if n.left == left && n.right == right {
		return n
	}
	m := &node[V]{key: n.key, val: n.val, left: left, right: right, prio: n.prio}
	m.resize()
	return m
}

// floor returns the node with the greatest key that is not after k, or nil.
func (n *node[V]) floor(k key) *node[V] {
	var best *node[V]
	for n != nil {
		if n.key.compare(k) <= 0 {
			best, n = n, n.right
		} else {
			n = n.left
		}
	}
	return best
}

// first returns the node with the lowest key, or nil.
func (n *node[V]) first() *node[V] {
	for n != nil && n.left != nil {
		n = n.left
	}
	return n
}

// before returns the tree of the elements with keys before k.
func (n *node[V]) before(k key) *node[V] {
	if n == nil {
		return nil
	}
	if n.key.compare(k) >= 0 {
		return n.left.before(k)
	}
	return n.with(n.left, n.right.before(k))
}

// after returns the tree of the elements with keys after k.
func (n *node[V]) after(k key) *node[V] {
	if n == nil {
		return nil
	}
	if n.key.compare(k) <= 0 {
		return n.right.after(k)
	}
	return n.with(n.left.after(k), n.right)
}

// join returns the tree of the elements of l and r. All keys of l must be before
// all keys of r.
func join[V comparable](l, r *node[V]) *node[V] {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case over(l.prio, l.key, r):
		return l.with(l.left, join(l.right, r))
	}
	return r.with(join(l, r.left), r.right)
}

// cut returns the tree without the elements from key lo to key hi, both
// included. It returns n itself when it has no such element. It costs O(log n),
// regardless of the number of elements that it cuts.
func (n *node[V]) cut(lo, hi key) *node[V] {
	switch {
	case n == nil:
		return nil
	case n.key.compare(lo) < 0:
		return n.with(n.left, n.right.cut(lo, hi))
	case n.key.compare(hi) > 0:
		return n.with(n.left.cut(lo, hi), n.right)
	}
	return join(n.left.before(lo), n.right.after(hi))
}

// put returns the tree with the value v at the key k. It returns n itself when
// n has the value already.
func (n *node[V]) put(k key, v V) *node[V] { return n.place(k, v, priority(k)) }

// place is put, given the priority of k.
func (n *node[V]) place(k key, v V, p uint32) *node[V] {
	if n == nil || over(p, k, n) {
		// k is not in n: a node with this priority would be at the root of n.
		m := &node[V]{key: k, val: v, left: n.before(k), right: n.after(k), prio: p}
		m.resize()
		return m
	}
	c := k.compare(n.key)
	switch {
	case c < 0:
		return n.with(n.left.place(k, v, p), n.right)
	case c > 0:
		return n.with(n.left, n.right.place(k, v, p))
	case n.val == v:
		return n
	}
	m := *n
	m.val = v
	return &m
}

// each calls yield for the elements in ascending order until yield returns
// false. It reports whether it reached the end.
func (n *node[V]) each(yield func(*node[V]) bool) bool {
	for ; n != nil; n = n.right {
		if !n.left.each(yield) || !yield(n) {
			return false
		}
	}
	return true
}

// equal reports whether two trees hold the same elements. It does not look into
// shared subtrees. Unequal trees mostly differ in size, which it compares first.
func (n *node[V]) equal(m *node[V]) bool {
	if n == m {
		return true
	}
	return n.count() == m.count() && n.key == m.key && n.val == m.val &&
		n.left.equal(m.left) && n.right.equal(m.right)
}

// clip returns the highest subtree that has its root strictly between lo and hi.
// It holds all elements of n between these bounds, and may hold elements outside
// them further down. A nil bound means no bound.
func (n *node[V]) clip(lo, hi *key) *node[V] {
	for n != nil {
		switch {
		case lo != nil && n.key.compare(*lo) <= 0:
			n = n.right
		case hi != nil && n.key.compare(*hi) >= 0:
			n = n.left
		default:
			return n
		}
	}
	return nil
}

// diff calls emit in ascending order for each key strictly between lo and hi at
// which a and b differ. The arguments of emit are the node of a and the node of
// b at this key; nil if the tree has no such key.
//
// It descends both trees in parallel, and stops where both have arrived at the
// same node.
func diff[V comparable](a, b *node[V], lo, hi *key, emit func(a, b *node[V])) {
	a, b = a.clip(lo, hi), b.clip(lo, hi)
	switch {
	case a == b:
	case a == nil || b != nil && over(b.prio, b.key, a):
		// b's key is not in a: with this priority it would be a's root.
		diff(a, b.left, lo, &b.key, emit)
		emit(nil, b)
		diff(a, b.right, &b.key, hi, emit)
	case b == nil || a.key != b.key:
		diff(a.left, b, lo, &a.key, emit)
		emit(a, nil)
		diff(a.right, b, &a.key, hi, emit)
	default:
		diff(a.left, b.left, lo, &a.key, emit)
		if a.val != b.val {
			emit(a, b)
		}
		diff(a.right, b.right, &a.key, hi, emit)
	}
}

// builder makes a tree from elements in ascending order, in O(n).
type builder[V comparable] struct {
	// spine is the path from the root down the right edge of the tree so far.
	// Its nodes have no size yet, since their right subtrees still grow.
	spine []*node[V]
}

// add appends an element. Its key must be after the keys of all elements so far.
func (b *builder[V]) add(k key, v V) {
	n := &node[V]{key: k, val: v, prio: priority(k)}
	depth := len(b.spine)
	for depth > 0 && over(n.prio, n.key, b.spine[depth-1]) {
		depth--
	}
	n.left = b.seal(depth)
	if depth > 0 {
		b.spine[depth-1].right = n
	}
	b.spine = append(b.spine, n)
}

// seal cuts the spine at a depth, sets the sizes of the nodes below, and returns
// the subtree that it cut off.
func (b *builder[V]) seal(depth int) *node[V] {
	var top *node[V]
	for len(b.spine) > depth {
		top = b.spine[len(b.spine)-1]
		top.resize()
		b.spine = b.spine[:len(b.spine)-1]
	}
	return top
}

// tree returns the tree and leaves the builder empty.
func (b *builder[V]) tree() *node[V] { return b.seal(0) }
