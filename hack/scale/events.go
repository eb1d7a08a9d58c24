package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// peers is the number of pods in the large group of the measurements below.
const peers = 5000

// Targets for events.
const (
	mostMedian = time.Millisecond
	mostTail   = 2 * time.Millisecond
)

// oneGroup returns a cluster whose local pods share a policy that allows a single group.
func oneGroup(local, outsiders, spacing int) *cluster {
	return &cluster{pods: local + peers + outsiders, namespaces: 1, policies: 1, local: local, clients: peers, spacing: spacing}
}

// measureEvents measures the time from a watch event until 20 pods have its rules. The server sends an event and then rests, so
// no other process of this program runs meanwhile.
func measureEvents(o *options) (string, error) {
	const local, rate = 20, 20
	lines := [][]string{{"peers", "pods", "in force in", "median", "p99", "samples"}}
	for _, spacing := range []int{1, 5} {
		c := oneGroup(local, 0, spacing)
		s, err := measureChanges(c, o, rate)
		if err != nil {
			return report.Table(lines), err
		}
		layout := map[int]string{1: "contiguous", 5: "scattered"}[spacing]
		for _, x := range []struct {
			name string
			list report.Samples
		}{{"a pod", s.Latency}, {"all pods", s.Whole}} {
			lines = append(lines, []string{
				fmt.Sprintf("%d %s", peers, layout), fmt.Sprint(local), x.name,
				report.Target(report.Duration(x.list.Percentile(50)), x.list.Percentile(50), mostMedian),
				report.Target(x.list.Tail(), x.list.Percentile(99), mostTail), fmt.Sprint(len(x.list)),
			})
		}
	}
	return report.Table(lines), nil
}

func measureChanges(c *cluster, o *options, rate int) (s state, err error) {
	p, err := start(c, o.memory)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := p.ask(stateCommand, 0); err != nil {
		return s, err
	}
	// The same peer leaves and joins again, so that contiguous addresses stay a single range with at most one hole.
	peer := c.local + c.clients/2
	for i := range o.changes {
		time.Sleep(time.Second / time.Duration(rate))
		if err := errors.Join(p.server.change(peer, [...]string{other, client}[i%2]), p.server.flush()); err != nil {
			return s, err
		}
	}
	return p.ask(stateCommand, o.changes)
}

// bursts is the number of times that the peers of a burst join.
const bursts = 5

// measureBurst measures 1,000 peers that join at once, in as many events: from the first event, as the agent has decoded it, until all local pods have the rules.
// The floor is the time of the kernel and the engine for the same change, with a single batch for each pod.
func measureBurst(o *options) (string, error) {
	const joining = 1000
	lines := [][]string{{"peers", "pods", "1,000 peers join", "one batch for each pod", "ratio", "samples"}}
	for _, local := range []int{20, perNode} {
		c := oneGroup(local, joining, 5)
		took, floor, err := measureBursts(c, o)
		if err != nil {
			return report.Table(lines), err
		}
		ratio := float64(took.Percentile(50)) / float64(floor.Percentile(50))
		text := report.Ratio(ratio)
		if ratio > 2 {
			text += " (misses 2x)"
		}
		lines = append(lines, []string{
			report.Thousands(peers), fmt.Sprint(local), report.Duration(took.Percentile(50)), report.Duration(floor.Percentile(50)), text, fmt.Sprint(len(took)),
		})
	}
	return report.Table(lines), nil
}

func measureBursts(c *cluster, o *options) (took, floor report.Samples, err error) {
	p, err := start(c, o.memory)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := p.ask(keepCommand, 0); err != nil {
		return nil, nil, err
	}
	var joined state
	for i := range 2 * bursts {
		app := [...]string{client, other}[i%2]
		frames, err := p.server.prepare(c.local+c.clients, c.pods, app)
		if err != nil {
			return nil, nil, err
		}
		if err := p.server.write(frames); err != nil {
			return nil, nil, err
		}
		command := stateCommand
		if i == 0 {
			command = floorCommand // the tables now have the peers
		}
		s, err := p.ask(command, c.pods-c.local-c.clients)
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			joined = s
		}
		if app == client {
			took = append(took, s.Span)
		}
	}
	return took, joined.Floor, nil
}

// measureIdle measures the processor time of an agent with 250 local pods when nothing happens. In the first minute, the agent
// often looks for bridges in new pods.
func measureIdle(o *options) (text string, err error) {
	const local, first, rest = 250, 65 * time.Second, 60 * time.Second
	c := &cluster{pods: local, namespaces: 1, policies: 1, local: local, spacing: 5}
	p, err := start(c, o.memory)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	time.Sleep(first)
	if _, err := p.ask(stateCommand, 0); err != nil {
		return "", err
	}
	time.Sleep(rest)
	s, err := p.ask(stateCommand, 0)
	if err != nil {
		return "", err
	}
	share := s.CPU.Seconds() / rest.Seconds()
	return report.Table([][]string{
		{"pods", "processor time when idle", "of a core"},
		{fmt.Sprint(local), report.Duration(s.CPU/time.Duration(rest.Seconds())) + " each second", fmt.Sprintf("%.2f%%", 100*share)},
	}), nil
}
