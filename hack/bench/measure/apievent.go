package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// eventRow is a row of the table of API server events: the time from the request to the API server until the rules are in force.
type eventRow struct {
	Layout layout `json:"layout"`
	Peers  int    `json:"peers"`
	// Pods is the number of local pods that have the group in their tables.
	Pods int `json:"pods"`
	// What names the end of the measured time.
	What    string        `json:"what"`
	Samples int           `json:"samples"`
	Median  time.Duration `json:"median_ns"`
	// Tail is p99, or the largest of few samples. Median and Tail are over all changes, additions and deletions of a peer together.
	Tail string `json:"tail"`
}

// moment has the times of a change of a peer: the request to the API server, and the commits in the first and the last pod.
type moment struct{ asked, first, last time.Time }

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

// eventRows returns two rows: until the first pod has the rules, and until all pods have them. Both include the API server and etcd.
func eventRows(at size, moments []moment) []eventRow {
	row := func(what string, took func(m moment) time.Duration) eventRow {
		var s report.Samples
		for _, m := range moments {
			s = append(s, took(m))
		}
		return eventRow{Layout: at.Layout, Peers: at.Peers, Pods: at.Pods, What: what, Samples: len(s), Median: s.Percentile(50), Tail: s.Tail()}
	}
	return []eventRow{
		row("first pod", func(m moment) time.Duration { return m.first.Sub(m.asked) }),
		row("all pods", func(m moment) time.Duration { return m.last.Sub(m.asked) }),
	}
}

func eventTable(rows []eventRow) string {
	lines := [][]string{{"peers", "pods", "in force in", "median", "p99", "samples"}}
	for _, x := range rows {
		lines = append(lines, []string{fmt.Sprintf("%d %s", x.Peers, x.Layout), fmt.Sprint(x.Pods), x.What, report.Duration(x.Median), x.Tail, fmt.Sprint(x.Samples)})
	}
	return report.Table(lines)
}
