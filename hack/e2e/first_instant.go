package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// Numbers of pods that start. The runtime of node1 has NRI, the runtime of node2 has no NRI.
// Pods of a batch start together, so that the runtime asks about them in a row.
const (
	guardedBatches = 5  // batches on node1
	guardedBatch   = 10 // pods of a batch
	unguarded      = 5  // on node 2, with each of the first two batches
	uncontrolled   = 3  // pods without a policy, which show that the test sees packets
)

// hooks is the metric that counts the starts of pods in which the runtime asked the agent first.
// Its label result tells how the start ended; "enforced" says that the table was in force in time.
const hooks = "multi_networkpolicy_pod_hooks_total"

// firstInstant starts pods that send forbidden packets from the first instruction of their first process on. No packet leaves a
// pod on node 1, with NRI. Some packets leave pods on node 2, without NRI; the test prints their number.
// The pods are forbidden to send, and a receiver counts the packets that arrive all the same.
func (s *scenario) firstInstant(ctx context.Context) error {
	receiver := s.pods["other"]
	to := net.JoinHostPort(receiver.addresses["net1"][0].String(), floodPort)

	// First without a policy: packets must arrive, or the receiver counts nothing.
	control := starters{"control", "node1", uncontrolled}
	arrivals, err := s.start(ctx, receiver, to, control)
	if err == nil {
		err = all(arrivals, control.names(), func(a arrival) bool { return a.Packets > 0 })
	}
	// Without this check, a test whose packets never arrive would pass.
	s.check("first instant: without a policy, packets of each pod arrive", err)
	if err := s.must(ctx, "apply", "-f", "hack/e2e/first-instant-policy.yaml"); err != nil {
		return err
	}
	// The policy must be enforced in pods that run before pods start.
	err = s.eventually(ctx, func() error { return s.tables(ctx, s.pods, "excluded", "monitor") })
	s.check("first instant: the agents know of the policy", err)
	if err != nil {
		return err
	}
	before, err := s.metric(ctx, "node1", hooks+`{result="enforced"}`)
	if err != nil {
		return err
	}
	// Now with the policy.
	leaked, windows, err := s.startAll(ctx, receiver, to)
	s.check(fmt.Sprintf("first instant: %d pods start on node1", guardedBatches*guardedBatch), err)
	if err != nil {
		return err
	}
	s.check("first instant: nothing gets out of any of them", leaked)
	after, err := s.metric(ctx, "node1", hooks+`{result="enforced"}`)
	// The count may include other pods of the node, so it is a lower limit.
	if want := float64(guardedBatches * guardedBatch); err == nil && after-before < want {
		err = fmt.Errorf("of %g pods", after-before)
	}
	s.check("first instant: the runtime asked before each of them", err)
	s.tell(ctx, windows)
	if err := s.must(ctx, "delete", "-f", "hack/e2e/first-instant-policy.yaml"); err != nil {
		return err
	}
	s.check("first instant: no table is left", s.eventually(ctx, func() error { return s.tables(ctx, s.pods) }))
	return nil
}

// startAll starts the pods of both nodes, batch by batch. leaked names the pods on node1 from which a packet arrived;
// windows are the arrivals from the pods on node2.
func (s *scenario) startAll(ctx context.Context, receiver *pod, to string) (leaked error, windows []arrival, err error) {
	var leaks []error
	for i := range guardedBatches {
		guarded := starters{fmt.Sprintf("guarded-%d", i), "node1", guardedBatch}
		batch := []starters{guarded}
		if i < 2 {
			batch = append(batch, starters{fmt.Sprintf("unguarded-%d", i), "node2", unguarded})
		}
		arrivals, err := s.start(ctx, receiver, to, batch...)
		if err != nil {
			return nil, nil, err
		}
		leaks = append(leaks, all(arrivals, guarded.names(), func(a arrival) bool { return a.Packets == 0 }))
		for _, b := range batch[1:] {
			for _, name := range b.names() {
				windows = append(windows, arrivals[name])
			}
		}
	}
	return errors.Join(leaks...), windows, nil
}

// start starts pods, waits until each has sent, and returns the arrivals from each pod. It fails if a pod does not
// start or does not try to send.
// The receiver listens before the first pod starts. The pods are deleted in any case.
func (s *scenario) start(ctx context.Context, receiver *pod, to string, batch ...starters) (map[string]arrival, error) {
	stop, err := s.receive(ctx, receiver)
	if err != nil {
		return nil, err
	}
	// The pods start while the receiver counts.
	err = s.launch(ctx, to, batch...)
	if err == nil {
		err = s.tried(ctx, batch...)
	}
	arrivals, errReceive := stop()
	return arrivals, errors.Join(err, errReceive, s.land(ctx, batch...))
}

// all returns an error for each pod whose arrival does not meet the condition.
// A pod that is missing in arrivals counts as a pod without packets.
func all(arrivals map[string]arrival, names []string, holds func(arrival) bool) error {
	var errs []error
	for _, name := range names {
		if a := arrivals[name]; !holds(a) {
			errs = append(errs, fmt.Errorf("of pod %s came %d packets, over %s", name, a.Packets, a.window()))
		}
	}
	return errors.Join(errs...)
}

// tell prints a comparison of the starts with NRI and without.
// It checks nothing: the figures are for the reader.
func (s *scenario) tell(ctx context.Context, windows []arrival) {
	slices.SortFunc(windows, func(a, b arrival) int { return a.Packets - b.Packets })
	packets, open, longest := 0, 0, time.Duration(0)
	for _, a := range windows {
		packets += a.Packets
		if a.Packets > 0 {
			open++
		}
		longest = max(longest, time.Duration(a.Last)*time.Microsecond)
	}
	s.note("without NRI: %d packets got out of %d of %d pods, %d of the median one, at most %s after its first instruction",
		packets, open, len(windows), windows[len(windows)/2].Packets, longest.Round(time.Millisecond))
	for _, m := range []struct{ node, metric, says string }{
		{"node2", "pod_start", "without NRI: rules came %.0f ms after the sandbox, on average over %g pods of that node"},
		{"node1", "pod_hook", "with NRI: the runtime waited %.1f ms for a pod, on average over %g of that node"},
	} {
		name := "multi_networkpolicy_" + m.metric + "_duration_seconds"
		sum, err := s.metric(ctx, m.node, name+"_sum")
		count, err2 := s.metric(ctx, m.node, name+"_count")
		if err := errors.Join(err, err2); err != nil {
			s.note("%s: %v", m.node, err)
			continue
		}
		s.note(m.says, 1000*sum/max(count, 1), count)
	}
}
