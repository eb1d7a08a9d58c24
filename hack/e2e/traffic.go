package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"time"
)

// stream is a flood of datagrams from a pod to another pod over net1.
type stream struct {
	from, to string // names of the pods
	allowed  bool   // by the policy
}

// traffic is floods in flight. Each receiver tells its senders apart by their names.
type traffic struct {
	senders   map[stream]*sender
	receivers map[string]func() (map[string]arrival, error) // by name of the pod
}

// sender is a process that floods.
type sender struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	out    bytes.Buffer
}

// delivery is the result of a stream.
type delivery struct {
	sent    int // datagrams that the sender tried to send, also those that its own egress rules refused
	arrived int
	window  time.Duration // between the first and the last datagram that arrived
}

// lost is the number of datagrams that did not arrive.
func (d delivery) lost() int { return d.sent - d.arrived }

// send starts all streams. It returns when the receivers listen and all senders send.
// The caller must call stop.
func (c *cluster) send(ctx context.Context, pods map[string]*pod, streams []stream) (*traffic, error) {
	t := &traffic{senders: map[stream]*sender{}, receivers: map[string]func() (map[string]arrival, error){}}
	for _, s := range streams {
		if t.receivers[s.to] != nil {
			continue
		}
		stop, err := c.receive(ctx, pods[s.to])
		if err != nil {
			_, errStop := t.stop()
			return nil, errors.Join(err, errStop)
		}
		t.receivers[s.to] = stop
	}
	for _, s := range streams {
		if err := t.start(ctx, c, pods, s); err != nil {
			_, errStop := t.stop()
			return nil, errors.Join(err, errStop)
		}
	}
	time.Sleep(300 * time.Millisecond)
	return t, nil
}

// start starts the flood of a stream. It enters the UTS namespace of the pod too, since the flood carries the host name.
func (t *traffic) start(ctx context.Context, c *cluster, pods map[string]*pod, s stream) error {
	ctx, cancel := context.WithCancel(ctx)
	to := net.JoinHostPort(pods[s.to].addresses["net1"][0].String(), floodPort)
	cmd := c.command(ctx, c.in("cp", "nsenter", "-t", fmt.Sprint(pods[s.from].sandbox), "--net", "--uts",
		filepath.Join(c.dir, "bin/probe"), "flood", "-ready", "-timeout", "10m", "-interval", "2ms", to)...)
	f := &sender{cmd: cmd, cancel: cancel}
	ready := make(chan struct{})
	cmd.Stdout = &announced{to: &f.out, ready: ready}
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	t.senders[s] = f
	// Before that, a signal would end the process without its summary.
	select {
	case <-ready:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the sender in %s does not start", s.from)
	}
}

// stop ends the senders, then the receivers, and returns the result of each stream.
func (t *traffic) stop() (map[stream]delivery, error) {
	var errs []error
	deliveries := map[stream]delivery{}
	for s, f := range t.senders {
		f.cancel()
		errWait := f.cmd.Wait() // as a rule, the error that it was ended
		var sent struct{ Tried int }
		if err := json.Unmarshal(bytes.TrimPrefix(f.out.Bytes(), []byte("ready\n")), &sent); err != nil {
			errs = append(errs, fmt.Errorf("%s does not say how many datagrams it sent to %s: %w: %w", s.from, s.to, err, errWait))
		}
		deliveries[s] = delivery{sent: sent.Tried}
	}
	time.Sleep(100 * time.Millisecond) // for datagrams in flight
	for name, stop := range t.receivers {
		arrivals, err := stop()
		errs = append(errs, err)
		for s, d := range deliveries {
			if s.to == name {
				d.arrived, d.window = arrivals[s.from].Packets, arrivals[s.from].window()
				deliveries[s] = d
			}
		}
	}
	return deliveries, errors.Join(errs...)
}
