package cache

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// tables renders the targets of all pods.
func tables(t testing.TB, c *Cache) map[string]string {
	out := map[string]string{}
	for _, ns := range model.WorldNamespaces {
		for i := range 5 {
			key := Key{Namespace: ns, Name: fmt.Sprintf("pod-%d", i)}
			if target, ok := targetOf(c, key.String()); ok {
				out[key.String()] = string(target.Pod.UID) + "\n" + render(t, target.Tables[engine.Inet])
			}
		}
	}
	return out
}

// FuzzWorld plays random events. After each, every table does what policies mean, every pod whose table changed
// was reported dirty, and now and then a new cache that gets the same objects in another way has the same tables.
func FuzzWorld(f *testing.F) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		f.Add(seed, uint8(50))
	}
	all := model.Probes()
	f.Fuzz(func(t *testing.T, seed uint64, events uint8) {
		all := slices.Clone(all)
		o := testOptions()
		splits := seed%2 == 1
		if splits {
			o.split = splitBounds{above: 2, below: 2}
		}
		w, c, state := model.NewWorld(seed), New(o), model.Objects{}
		before := tables(t, c)
		for i := range int(events % 64) { // a run has ten seconds
			obj := w.Object()
			if old := state[model.KindOf(obj)]; old != nil && w.IntN(4) == 0 {
				delete(state, model.KindOf(obj))
				remove(c, obj)
			} else {
				state.Put(obj)
				upsert(c, obj)
			}
			after := tables(t, c)
			checkDirty(t, c, before, after)
			before = after
			w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			comparePackets(t, c, model.NewOracle(state.Sorted(), testOptions().NetworkPlugins...), all[:40])
			if i%10 == 9 && !splits { // the way decides which groups are split
				checkWays(t, w, state, after)
			}
			if t.Failed() {
				t.Fatalf("event %d was %s", i, model.KindOf(obj))
			}
		}
		checkEmpty(t, c, state)
	})
}

// TestWays reaches each named state of the semantics in many ways. The packets that pass stay the same, and all tables
// do to the letter.
func TestWays(t *testing.T) {
	for _, tt := range semantics {
		t.Run(tt.name, func(t *testing.T) {
			state := append(slices.Clone(tt.objects), model.WebPod())
			want := renderPod(t, newCluster(t, state...), "web")
			for name, way := range ways {
				for seed := range uint64(10) {
					c := New(testOptions())
					way(model.NewWorld(seed), c, slices.Clone(state))
					if diff := cmp.Diff(want, renderPod(t, c, "web")); diff != "" {
						t.Errorf("%s, seed %d (-want +got):\n%s", name, seed, diff)
					}
					wantPackets(t, c, "web", tt.packets...)
				}
			}
		})
	}
}

// checkDirty checks that what changed was reported.
func checkDirty(t *testing.T, c *Cache, before, after map[string]string) {
	t.Helper()
	dirty := c.TakeDirty()
	for _, id := range dirty {
		c.Plan(id)
	}
	if !slices.IsSortedFunc(dirty, comparePodIDs) {
		t.Errorf("not sorted: %v", dirty)
	}
	for _, state := range []map[string]string{before, after} {
		for key := range state {
			if before[key] != after[key] && !slices.ContainsFunc(dirty, func(id PodID) bool { return id.Key == model.KeyOf(key) }) {
				t.Errorf("%s changed and is not dirty (-before +after):\n%s", key, cmp.Diff(before[key], after[key]))
			}
		}
	}
}

// checkWays gives new caches the same objects in other ways.
func checkWays(t *testing.T, w model.World, state model.Objects, want map[string]string) {
	t.Helper()
	for name, way := range ways {
		c := New(testOptions())
		way(w, c, state.Sorted())
		if diff := cmp.Diff(want, tables(t, c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// ways are ways to the same state.
var ways = map[string]func(w model.World, c *Cache, state []metav1.Object){
	"forward": func(_ model.World, c *Cache, state []metav1.Object) { play(c, state) },
	"reversed": func(_ model.World, c *Cache, state []metav1.Object) {
		slices.Reverse(state)
		play(c, state)
	},
	"shuffled": func(w model.World, c *Cache, state []metav1.Object) { play(c, model.Shuffled(w, state)) },
	"doubled": func(w model.World, c *Cache, state []metav1.Object) {
		play(c, model.Shuffled(w, state))
		play(c, model.Shuffled(w, state))
	},
	// Tables are read on the way, so that plans are made and groups active while objects come.
	"read on the way": func(w model.World, c *Cache, state []metav1.Object) {
		for _, o := range model.Shuffled(w, state) {
			upsert(c, o)
			settle(c)
		}
	},
	// All objects are others first, and change or go and come back.
	"relabeled": func(w model.World, c *Cache, state []metav1.Object) {
		play(c, state)
		settle(c)
		for _, o := range model.Shuffled(w, append(model.Others(state), state...)) {
			upsert(c, o)
			settle(c)
		}
		for _, o := range model.Shuffled(w, state) {
			if w.IntN(2) == 0 {
				remove(c, o)
				settle(c)
			}
			upsert(c, o)
		}
		play(c, model.Shuffled(w, state))
	},
	// There are more objects for a while, and some are others first.
	"detoured": func(w model.World, c *Cache, state []metav1.Object) {
		kept := model.Objects{}
		for _, o := range state {
			kept.Put(o)
		}
		for range 40 {
			o := w.Object()
			upsert(c, o)
			settle(c)
			if kept[model.KindOf(o)] == nil {
				defer remove(c, o)
			}
		}
		play(c, model.Shuffled(w, state))
		settle(c)
	},
}

func play(c *Cache, state []metav1.Object) {
	for _, o := range state {
		upsert(c, o)
	}
}

func settle(c *Cache) {
	for _, k := range c.TakeDirty() {
		c.Plan(k)
	}
}

// checkEmpty deletes everything and checks that nothing is left.
func checkEmpty(t *testing.T, c *Cache, state model.Objects) {
	t.Helper()
	for _, o := range state {
		remove(c, o)
	}
	settle(c)
	left := map[string]int{
		"pods": len(c.pods), "namespaces": len(c.namespaces), "networks": len(c.networks), "policies": len(c.policies),
		"targets": len(c.targets), "scopes": len(c.scopes), "groups": len(c.groups), "ports": len(c.ports),
		"chains": len(c.chains), "network sets": len(c.networkSets), "retired groups": len(c.retired), "scopes in the index": c.labels.Len(),
		"dirty pods": len(c.dirty), "policies to fetch": len(c.refetch),
	}
	for what, n := range left {
		if n > 0 {
			t.Errorf("%d %s are left", n, what)
		}
	}
	if s := c.Stats(); s != (Stats{Sandboxes: s.Sandboxes}) {
		t.Errorf("counts are left: %+v", s)
	}
}
