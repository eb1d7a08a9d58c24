package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/apiserver"
)

// eventRow is a row of the table of API server events: the time between two points on the way through the whole agent.
type eventRow struct {
	Layout layout `json:"layout"`
	Peers  int    `json:"peers"`
	// Pods is the number of local pods that have the group in their tables.
	Pods int `json:"pods"`
	// What names the two points of the way.
	What    string        `json:"what"`
	Samples int           `json:"samples"`
	Median  time.Duration `json:"median_ns"`
	// Median and P99 are over all changes, additions and deletions of a peer together.
	P99 time.Duration `json:"p99_ns"`
}

// moment has the times of a change of a peer: the request to the API server, the watch event at the tap, and the commits in the
// first and the last pod.
// told is never after first: the tap notes the time before it passes the event on.
type moment struct{ asked, told, first, last time.Time }

// eventChanges is the number of changes at a size: half of them create the peer, half delete it. With 400 samples,
// four are slower than p99.
const eventChanges = 400

// canMeasureEvents reports whether Kubernetes is built. If only events are wanted, it returns true, so that the error is shown.
func canMeasureEvents(o options) bool {
	_, err := apiserver.Binary()
	if err != nil && o.changes {
		fmt.Fprintln(os.Stderr, "events are left out:", err)
		return false
	}
	return true
}

// measureEvents measures a group of 5,000 peers in 20 pods: first contiguous addresses, as IPAM plugins hand them
// out, then scattered addresses, the worst case.
func measureEvents(o options) (rows []eventRow, err error) {
	for _, l := range []layout{contiguous, scattered} {
		at, changes := oneGroup(l, 5_000, 20), eventChanges
		if o.smoke {
			at, changes = oneGroup(l, 20, 2), 4
		}
		fmt.Fprintf(os.Stderr, "events: %s\n", at)
		more, err := measureEventsAt(at, changes)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
		if o.smoke {
			break
		}
	}
	return rows, nil
}

// measureEventsAt starts an agent and all around it for this size only, so no state of an earlier size is left.
func measureEventsAt(at size, changes int) (rows []eventRow, err error) {
	w, err := startWholeAgent(at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	moments, err := w.changePeer(changes)
	if err != nil {
		return nil, err
	}
	return eventRows(at, moments), nil
}

// changePeer creates and deletes a peer in turn, and returns the times of each change.
// A change starts when the change before it is in force in all pods, so changes never wait for each other. The figure
// would be too low if the agent wrote to a pod for another reason between asked and the change: since accepts any
// batch. Nothing else changes during the measurement.
func (w *wholeAgent) changePeer(times int) ([]moment, error) {
	ctx := context.Background()
	var moments []moment
	for i := range times {
		m := moment{asked: time.Now()}
		var err error
		if i%2 == 0 {
			_, err = w.createPod(ctx, w.objects.peer)
		} else {
			err = w.deletePod(ctx, w.objects.peer)
		}
		if err != nil {
			return nil, err
		}
		err = eventually(10*time.Second, "a change is in force in all pods", func() error {
			in, ok := w.since(m.asked)
			if !ok {
				return errors.New("not in some")
			}
			m.first, m.last = slices.MinFunc(in, time.Time.Compare), slices.MaxFunc(in, time.Time.Compare)
			if m.told, ok = w.firstSince(m.asked); !ok {
				return errors.New("no event has come by")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		// The next change starts only now, with all pods up to date.
		moments = append(moments, m)
	}
	return moments, nil
}

// eventRows returns three rows: the agent's time to the first pod, the agent's time to all pods, and the time that a
// user waits, which has the API server and etcd in it.
func eventRows(at size, moments []moment) []eventRow {
	row := func(what string, took func(m moment) time.Duration) eventRow {
		s := samples{}
		for _, m := range moments {
			s.took = append(s.took, took(m))
		}
		return eventRow{Layout: at.Layout, Peers: at.Peers, Pods: at.Pods, What: what, Samples: len(s.took), Median: s.median(), P99: s.p99()}
	}
	return []eventRow{
		row("watch event until the kernel has it in the first pod", func(m moment) time.Duration { return m.first.Sub(m.told) }),
		row("watch event until the kernel has it in all pods", func(m moment) time.Duration { return m.last.Sub(m.told) }),
		row("request to the API server until the kernel has it in all pods", func(m moment) time.Duration { return m.last.Sub(m.asked) }),
	}
}

func eventTable(rows []eventRow) string {
	lines := [][]string{{"peers", "pods", "a peer joins or leaves", "median", "p99"}}
	for _, x := range rows {
		lines = append(lines, []string{fmt.Sprintf("%d %s", x.Peers, x.Layout), fmt.Sprint(x.Pods), x.What, short(x.Median), short(x.P99)})
	}
	return markdown(lines)
}
