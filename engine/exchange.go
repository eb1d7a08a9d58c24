//go:build linux

package engine

import (
	"encoding/binary"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// exchange holds the buffers for a batch and its answers. A call of an Engine takes an exchange for its duration, so a
// node needs as many as calls run at the same time, not one for each pod.
type exchange struct {
	batch     batch
	canonical canonicals // cache of the canonical texts of rules
	elements  []element  // elements of the set that is read back, and the bytes of their keys (keys)
	keys      arena
}

// Buffers that have grown large are freed by the garbage collector, as all in a sync.Pool.
var exchanges = sync.Pool{New: func() any { return &exchange{} }}

// exchange returns buffers for messages about the Engine's table. The caller calls done behind the last use.
func (e *Engine) exchange() (x *exchange, done func()) {
	x = exchanges.Get().(*exchange)
	x.batch.family = e.family
	return x, func() { exchanges.Put(x) }
}

// maximumEcho is the size of the echo of a rule, bytes. The kernel doubles the limit for its own overhead.
const maximumEcho = 2 << 10

// roundTrip sends the batch and reads the kernel's answers. It stores the handles of new rules in handles, a slice for
// each chain with a place for each rule. A nil error means that the whole batch is in force.
func (x *exchange) roundTrip(t *nfnl.Conn, handles map[string][]uint64) error {
	if err := t.GrowReceive(len(x.batch.added) * maximumEcho); err != nil {
		return err
	}
	return t.Do(&x.batch.Messages, func(a nfnl.Answer) error { return x.batch.echo(a, handles) })
}

// echo reads the handle of a rule that the batch added. It ignores all other answers.
// The sequence number of the answer tells to which new rule it belongs.
func (b *batch) echo(a nfnl.Answer, handles map[string][]uint64) error {
	i, ok := slices.BinarySearchFunc(b.added, a.Sequence, func(r addedRule, seq uint32) int { return int(r.sequence) - int(seq) })
	if !ok || a.Type != nfnl.NFTables|unix.NFT_MSG_NEWRULE {
		return nil
	}
	return nfnl.EachAttr(a.Content(), func(typ uint16, value []byte) {
		if typ == unix.NFTA_RULE_HANDLE && len(value) == 8 {
			handles[b.added[i].chain][b.added[i].index] = binary.BigEndian.Uint64(value)
		}
	})
}

// ask sends the questions in the buffer and calls visit with each answer of a type (NFT_MSG_…), see nfnl.Conn.Ask.
func (x *exchange) ask(t *nfnl.Conn, answer uint16, visit func(nfnl.Attrs) error) error {
	return t.Ask(&x.batch.Messages, nfnl.NFTables|answer, visit)
}
