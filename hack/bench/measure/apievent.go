package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// eventReport is how long an event of the API server takes until it is enforced, through the whole agent.
type eventReport struct {
	Peers int        `json:"peers"`
	Pods  int        `json:"pods"`
	Rows  []eventRow `json:"rows"`
}

// eventRow is a way from one point to another.
type eventRow struct {
	What    string        `json:"what"`
	Samples int           `json:"samples"`
	Median  time.Duration `json:"median_ns"`
	P99     time.Duration `json:"p99_ns"`
}

// moment is one change of a peer: when it was asked for, when the API server's event came by
// on its way to the agent, and when the kernel had it in
// the first and in the last of the pods.
type moment struct{ asked, told, first, last time.Time }

const eventChanges = 400

func measureEvents(o options) (r *eventReport, err error) {
	r = &eventReport{Peers: 5_000, Pods: 20}
	changes := eventChanges
	if o.smoke {
		r.Peers, r.Pods, changes = 20, 2, 4
	}
	fmt.Fprintf(os.Stderr, "events: %d peers, %d pods\n", r.Peers, r.Pods)
	w, err := startWholeAgent(oneGroup(scattered, r.Peers, r.Pods))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	moments, err := w.changePeer(changes)
	if err != nil {
		return nil, err
	}
	r.Rows = eventRows(moments)
	return r, nil
}

// changePeer has one peer join and leave.
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
		moments = append(moments, m)
	}
	return moments, nil
}

func eventRows(moments []moment) []eventRow {
	row := func(what string, took func(m moment) time.Duration) eventRow {
		s := samples{}
		for _, m := range moments {
			s.took = append(s.took, took(m))
		}
		return eventRow{What: what, Samples: len(s.took), Median: s.median(), P99: s.p99()}
	}
	return []eventRow{
		row("watch event until the kernel has it in the first pod", func(m moment) time.Duration { return m.first.Sub(m.told) }),
		row("watch event until the kernel has it in all pods", func(m moment) time.Duration { return m.last.Sub(m.told) }),
		row("request to the API server until the kernel has it in all pods", func(m moment) time.Duration { return m.last.Sub(m.asked) }),
	}
}

func (r *eventReport) table() string {
	lines := [][]string{{fmt.Sprintf("one peer more or less, %d peers, %d local pods", r.Peers, r.Pods), "median", "p99"}}
	for _, x := range r.Rows {
		lines = append(lines, []string{x.What, short(x.Median), short(x.P99)})
	}
	return markdown(lines)
}
