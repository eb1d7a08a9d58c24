package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// limits bounds the measurement of a way in a cycle of events.
// preparations count too
type limits struct {
	budget time.Duration // total; every way runs each event at least twice, the first time to warm up
	turn   time.Duration // before the next way takes its turn
	most   int           // samples of an event
	nft    int           // peers on all pods beyond which the ways that run nft only add and remove a peer
}

// row is the result of an event at a size in a way.
type row struct {
	size
	Event    string        `json:"event"`
	Way      string        `json:"way"`
	Samples  int           `json:"samples"`
	Median   time.Duration `json:"median_ns"`
	Tail     string        `json:"tail"`        // p99, or the largest of few samples
	Floor    float64       `json:"times_floor"` // median divided by the floor's median
	CPU      time.Duration `json:"cpu_ns"`      // mean
	CPUFloor float64       `json:"times_floor_cpu"`
	Bytes    uint64        `json:"bytes"`
	Allocs   uint64        `json:"allocs"`
}

// runSize measures all events at a size.
// Each size has its own world and its own namespaces, so no state of an earlier size is left.
func runSize(s size, wanted map[string]bool, l limits) (rows []row, err error) {
	// The world comes first: all ways need its rulesets.
	w := newWorld(s)
	ways, closeAll, err := newWays(w, wanted)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	for _, events := range cycles {
		// The garbage of the cycle before would be collected in the middle of a measurement.
		runtime.GC()
		able := ways
		// The ways that run nft sit out the events that would take them minutes, and the events alone.
		if events[0].alone || events[0] == relabelIn && s.Peers > mostToRelabelWithNFT || events[0] != addPeer && s.Peers*s.Pods > l.nft {
			able = slices.DeleteFunc(slices.Clone(ways), func(y way) bool { return y.name() == "knftables" || y.name() == "rewrite" })
		}
		measured, err := runCycle(able, events, l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		for _, e := range events {
			// The floor is always measured, as the ratios need it.
			// The ratios of a row are to the floor of the same event.
			floor := measured[key{"floor", e}]
			for _, y := range able {
				rows = append(rows, newRow(s, y, e, measured[key{y.name(), e}], floor))
			}
		}
	}
	return rows, nil
}

// newRow sums up the samples. The mean CPU time of a short event can be 0 after the overhead is taken off, so the
// ratio divides by at least a nanosecond.
func newRow(s size, y way, e event, m, floor *samples) row {
	return row{
		size: s, Event: e.name, Way: y.name(), Samples: len(m.took),
		Median: m.took.Percentile(50), Tail: m.took.Tail(), Floor: float64(m.took.Percentile(50)) / float64(floor.took.Percentile(50)),
		CPU: m.cpuEach(), CPUFloor: float64(m.cpuEach()) / float64(max(1, floor.cpuEach())), Bytes: m.bytes, Allocs: m.allocs,
	}
}

const (
	mostToRelabelWithNFT = 1000   // peers; with more of them, nft 1.0.6 takes minutes to delete the elements of a namespace
	mostPodsWithConn     = 20     // a Conn of google/nftables panics with a descriptor above 1023
	mostPeersWithConn    = 10_000 // at 100,000, its first apply leaves another table than the other ways
)

// newWays returns the wanted ways. The engine and the agent have their own fleets, since they detect changes by others. The other
// ways share a fleet.
// The engine and the agent may share theirs, since a run of a cycle brings the tables to the state that it needs.
func newWays(w *world, wanted map[string]bool) (ways []way, closeAll func() error, err error) {
	ours, err := newTables(w.Pods)
	if err != nil {
		return nil, nil, err
	}
	shared, err := newFleet(w.Pods)
	if err != nil {
		return nil, nil, errors.Join(err, ours.close())
	}
	floor := newFloorWay(shared, w)
	conn := newConnWay(shared, w)
	closeAll = func() error { return errors.Join(floor.close(), conn.close(), shared.close(), ours.close()) }
	ways = []way{floor, &engineWay{tables: ours, world: w}, newAgentWay(ours, w)}
	if w.Pods <= mostPodsWithConn && w.Peers <= mostPeersWithConn {
		ways = append(ways, conn)
	}
	if wanted["knftables"] {
		y, err := newKnftablesWay(shared, w)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		ways = append(ways, y)
	}
	if wanted["rewrite"] {
		ways = append(ways, newRewriteWay(shared, w))
	}
	return ways, closeAll, nil
}

// key names the samples of an event in a way. Events are compared by value.
type key struct {
	way   string
	event event
}

// runCycle lets the ways take turns until each has used its budget, so that other load on the machine slows all alike.
// Afterwards check compares the tables of all ways.
func runCycle(ways []way, events []event, l limits) (map[key]*samples, error) {
	if events[0].alone {
		l.budget *= 5 // most of the time is pauses
	}
	measured := map[key]*samples{}
	for _, y := range ways {
		for _, e := range events {
			measured[key{y.name(), e}] = &samples{}
		}
		if err := warmUp(y, events, measured); err != nil {
			return nil, fmt.Errorf("%s: %w", y.name(), err)
		}
	}
	// A way that has used its budget, or has enough samples, does nothing in its turn.
	for active := true; active; {
		active = false
		for _, y := range ways {
			more, err := takeTurn(y, events, measured, l)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", y.name(), err)
			}
			active = active || more
		}
	}
	return measured, check(ways, events)
}

// warmUp is the first run of the events. It counts allocations, and its time is no sample.
// It runs the events twice: the first run fills caches and buffers, and the second run's allocations remain. A way
// that takes a second for an event runs only once, to save time.
func warmUp(y way, events []event, measured map[key]*samples) error {
	for range 2 {
		for _, e := range events {
			s := measured[key{y.name(), e}]
			if err := s.measure(y, e, true); err != nil {
				return err
			}
			if s.spent > time.Second {
				return nil
			}
		}
	}
	return nil
}

// takeTurn runs the events until the turn is over. more reports whether the way needs another turn.
// spent returns the time of the way in the cycle so far, and the number of its samples.
// A turn runs all events of the cycle at least once, in their order, so that each event starts where the event before
// it ended.
func takeTurn(y way, events []event, measured map[key]*samples, l limits) (more bool, err error) {
	spent := func() (sum time.Duration, n int) {
		for _, e := range events {
			sum += measured[key{y.name(), e}].spent
		}
		return sum, len(measured[key{y.name(), events[0]}].took)
	}
	before, n := spent()
	for now := before; n == 0 || now-before < l.turn && now < l.budget && n < l.most; now, n = spent() {
		for _, e := range events {
			if err := measured[key{y.name(), e}].measure(y, e, false); err != nil {
				return false, err
			}
		}
	}
	now, n := spent()
	return now < l.budget && n < l.most, nil
}
