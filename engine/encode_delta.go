//go:build linux

package engine

import (
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// manyElements is the number of elements from which on the messages of a delta are kept. Fewer elements are encoded in
// the time that a look for kept messages takes.
const manyElements = 16

// changeElements writes the delta. If it has many elements, the messages are encoded once, and each pod's batch gets a
// copy.
// Workers of several pods may call it with the same delta at the same time.
func (b *batch) changeElements(c *elementChange) {
	if c.len() < manyElements {
		b.encodeDelta(c.set.Name, c.delta)
		return
	}
	c.encoding.Do(func() { c.encoded.encodeDelta(c.set.Name, c.delta) })
	b.Append(&c.encoded.Messages)
}

// encodeDelta writes the deletions before the additions, so that a range that is widened, split or merged never
// overlaps the range that it replaces.
func (b *batch) encodeDelta(set string, d *delta) {
	remove, add := b.list(unix.NFT_MSG_DELSETELEM, "DELSETELEM", set), b.list(unix.NFT_MSG_NEWSETELEM, "NEWSETELEM", set)
	writeDelta(remove, add, d.ranges, (*elementList).addrRange)
	writeDelta(remove, add, d.hosts, (*elementList).host)
	writeDelta(remove, add, d.endpoints, (*elementList).endpoint)
}

// writeDelta writes one kind of elements.
// A kind without a difference writes no message.
func writeDelta[T any](remove, add elementList, d sets.Delta[T], write func(*elementList, T)) {
	if d.IsEmpty() {
		return
	}
	writeElements(remove, d.Del, write)
	writeElements(add, d.Add, write)
}
