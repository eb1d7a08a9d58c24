package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// tables holds the engines of a fleet.
type tables struct {
	*fleet
	// by pod; nil: not open
	engines []*engine.Engine // nil: not open
	// Stats of a closed engine are gone, so closeAll adds its bytes here.
	before uint64 // bytes that closed engines sent
}

// newTables creates a fleet of its own. An engine repairs changes by others, so no other way may write to its tables.
func newTables(pods int) (*tables, error) {
	f, err := newFleet(pods)
	if err != nil {
		return nil, err
	}
	return &tables{fleet: f, engines: make([]*engine.Engine, pods)}, nil
}

// apply applies a ruleset to pod i. It opens the engine if necessary.
// The engine stays open, as in the agent, and remembers the table that the kernel acknowledged.
func (t *tables) apply(i int, want engine.Ruleset) error {
	if t.engines[i] == nil {
		e, err := engine.Open(fmt.Sprintf("pod-%d", i), t.hosts[i].NetNS(), engine.Options{})
		if err != nil {
			return err
		}
		t.engines[i] = e
	}
	return t.engines[i].Apply(context.Background(), want)
}

// closeAll closes the engines and waits until the kernel has freed deleted objects.
// Closing a socket waits for this work (see the decisions in docs), so that the next event does not collide with it.
func (t *tables) closeAll() error {
	var errs []error
	for i, e := range t.engines {
		if e != nil {
			t.before += e.Stats().Bytes
			errs = append(errs, e.Close())
			t.engines[i] = nil
		}
	}
	return errors.Join(errs...)
}

func (t *tables) sent() uint64 {
	bytes := t.before
	for _, e := range t.engines {
		if e != nil {
			bytes += e.Stats().Bytes
		}
	}
	return bytes
}

func (t *tables) close() error { return errors.Join(t.closeAll(), t.fleet.close()) }

// bring applies the rulesets, and closes the engines if the event starts without them.
// The tables are in the state from which the event starts then.
func (t *tables) bring(e event, rulesets []engine.Ruleset) error {
	if err := each(len(rulesets), func(i int) error { return t.apply(i, rulesets[i]) }); err != nil {
		return err
	}
	t.at = e.from
	if e.reopen {
		return t.closeAll()
	}
	return nil
}

// engineWay gives prepared rulesets to the engine.
// The figure has the comparison with the table that was applied last, the encoding and both system calls. It lacks
// all work of the cache.
type engineWay struct {
	*tables
	world *world
	// by pod; prepared for the next run
	want []engine.Ruleset
}

func (*engineWay) name() string { return "engine" }

// prepare builds new versions of the sets, so that run computes their differences, like the first pod of a change in
// the agent.
func (y *engineWay) prepare(e event) error {
	y.want = renewed(y.world.rulesets[e.from], y.world.rulesets[e.to])
	return y.bring(e, y.world.rulesets[e.from])
}

func (y *engineWay) run(e event) error {
	return each(len(y.want), func(i int) error { return y.apply(i, y.want[i]) })
}

// renewed returns the rulesets with new versions of the changed sets. All pods share a version, as in the cache. So an engine
// cannot reuse differences that it computed in an earlier run.
// versions maps a set to its new version, so that all pods get the same version.
func renewed(from, to []engine.Ruleset) []engine.Ruleset {
	versions := map[*engine.Set]*engine.Set{}
	list := slices.Clone(to)
	for i := range list {
		list[i].Sets = slices.Clone(to[i].Sets)
		for n, s := range list[i].Sets {
			// An unchanged set keeps its pointer: the engine skips equal pointers, as it does with the sets of the
			// cache.
			if slices.Contains(from[i].Sets, s) {
				continue
			}
			if versions[s] == nil {
				versions[s] = &engine.Set{Name: s.Name, Comment: s.Comment, Elements: s.Elements}
			}
			list[i].Sets[n] = versions[s]
		}
	}
	return list
}

// agentWay gives objects to the cache, and the rulesets of the cache to the engine.
// The figure starts with an object of the API: its conversion, as in the informers, is a part of it. It lacks the decoding
// of the watch event and the queue of the reconciler; the events of an API server have these too.
type agentWay struct {
	*tables
	world *world
	order map[cache.PodID]int // number of a pod
}

// newAgentWay returns the way. It may share its tables with the engine's way, as both write them by the same engines.
func newAgentWay(t *tables, w *world) *agentWay {
	y := &agentWay{tables: t, world: w, order: map[cache.PodID]int{}}
	for i, p := range w.pods {
		y.order[idOf(p)] = i
	}
	return y
}

func (*agentWay) name() string { return "agent" }

// prepare brings the cache and the tables to the start of the event, and takes the dirty pods, so that only the
// event's own remain.
func (y *agentWay) prepare(e event) error {
	y.world.enter(e.from)
	rulesets := make([]engine.Ruleset, len(y.world.pods))
	if e.from != absent {
		for i, p := range y.world.pods {
			rulesets[i] = rulesetOf(y.world.cache, p)
		}
	}
	y.world.cache.TakeDirty()
	if err := y.bring(e, rulesets); err != nil {
		return err
	}
	switch e {
	// The pods are not known yet: the event adds them to a cache that has everything else.
	case firstApply:
		for id := range y.order {
			y.world.cache.DeletePod(id.Key)
		}
		y.world.cache.TakeDirty()
	// A new agent has an empty cache; the event fills it, as the first lists of all informers do.
	case restartNoChange:
		y.world.cache = newCache()
	}
	return nil
}

// run gives the cache the event, then plans and applies the table of each dirty pod, with as many threads as cores.
func (y *agentWay) run(e event) error {
	switch {
	case e == firstApply:
		y.world.addPods(y.world.cache)
	case e == restartNoChange:
		y.world.fill(y.world.cache)
		y.world.addPods(y.world.cache)
	case e.to == base:
		y.world.leave(e.from)
	default:
		y.world.enter(e.to)
	}
	// From here on it is the work of the reconciler: plan and apply each dirty pod.
	keys := y.world.cache.TakeDirty()
	// A change that reaches fewer pods would look fast, so it is an error.
	if len(keys) != len(y.order) {
		return fmt.Errorf("%s: %d of %d pods are dirty", e.name, len(keys), len(y.order))
	}
	return each(len(keys), func(i int) error {
		target, ok := y.world.cache.Plan(keys[i])
		if !ok {
			return fmt.Errorf("%s: no target for %s", e.name, keys[i])
		}
		return y.apply(y.order[keys[i]], target.Tables[engine.Inet])
	})
}
