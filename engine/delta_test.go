package engine

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// block is n addresses from 10.b.0.0 on, none a neighbor of another.
func block(b byte, n int) sets.Addrs {
	list := make([]sets.AddrRange, 0, n)
	for i := range n {
		list = append(list, sets.Single(netip.AddrFrom4([4]byte{10, b, byte(i >> 7), byte(i << 1)})))
	}
	return sets.NewAddrs(list...)
}

func version(addrs sets.Addrs) *Set {
	return &Set{Name: "peers", Elements: Addrs{sets.V4, addrs}}
}

// What pods that have a set find in its version is the same delta, and its messages are what each would have encoded.
func TestDeltaIsShared(t *testing.T) {
	base := block(0, 20_000)
	for _, n := range []int{1, manyElements, 1000} { // the last size needs several messages
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			have, want := version(base.Union(block(1, n))), version(base.Union(block(2, n)))
			first, ok := want.since(have)
			again, _ := want.since(have)
			if !ok || first != again {
				t.Fatalf("worked out anew: %p, %p", first, again)
			}
			for range 2 {
				var alone batch
				alone.reset()
				alone.encodeDelta("peers", first)
				var b batch
				b.reset()
				b.changeElements(&elementChange{want, first})
				if !bytes.Equal(alone.Bytes(), b.Bytes()) || b.Sequence() != alone.Sequence() || b.Count() != alone.Count() {
					t.Fatalf("%d bytes in %d messages to number %d; want %d in %d to number %d",
						b.Len(), b.Count(), b.Sequence(), alone.Len(), alone.Count(), alone.Sequence())
				}
				// Both know where the last message starts.
				alone.EndBatch()
				b.EndBatch()
				if !bytes.Equal(alone.Bytes(), b.Bytes()) {
					t.Fatal("EndBatch changed another message than the last one")
				}
			}
		})
	}
}

// A set does not keep a delta that is as long as the set.
func TestLongDeltaIsNotKept(t *testing.T) {
	want := version(block(1, 5000))
	if d, ok := want.since(version(sets.Addrs{})); !ok || d.len() != 5000 || want.last.Load() != nil {
		t.Errorf("%v, %d elements, kept %v", ok, d.len(), want.last.Load() != nil)
	}
}

// A pod that comes from another version gets another delta.
func TestDeltaOfOtherVersions(t *testing.T) {
	empty, one, two := version(sets.Addrs{}), version(block(1, 1)), version(block(1, 2))
	for _, from := range []*Set{one, empty, one, two, version(block(1, 1))} {
		d, ok := two.since(from)
		have := from.Elements.(Addrs).Addrs.Len(sets.V4)
		if !ok || len(d.ranges.Add) != 2-have || len(d.ranges.Del) != 0 {
			t.Errorf("from %d addresses: %v, %v", have, d, ok)
		}
	}
}

// Pods with the same sets change at the same time, by deltas of many messages.
func TestDeltaInManyPods(t *testing.T) {
	l := lab.ForTest(t)
	versions := []*Set{version(block(1, 3000)), version(block(2, 3000)), version(sets.Addrs{}), version(block(1, 3000))}
	var running sync.WaitGroup
	for i := range 4 {
		h, e := pod(t, l, fmt.Sprintf("pod-%d", i))
		running.Go(func() {
			for _, v := range versions {
				rs := NewRuleset([]*Set{v}, nil)
				if err := e.Apply(t.Context(), rs); err != nil {
					t.Error(err)
				}
			}
			if n := e.Stats().ReadBacks; n != 1 {
				t.Errorf("%d read-backs", n)
			}
			x, err := Open("again", h.NetNS(), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer x.Close()
			if err := x.Apply(t.Context(), NewRuleset([]*Set{versions[3]}, nil)); err != nil || x.Stats().Batches != 0 {
				t.Errorf("%d batches, %v: the set is not what it should be", x.Stats().Batches, err)
			}
		})
	}
	running.Wait()
}
