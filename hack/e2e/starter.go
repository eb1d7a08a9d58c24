package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

const (
	floodPort      = "7000"
	floodSeconds   = 1      // duration of the flood of a pod
	launchPatience = "2m0s" // for many pods that start together on a busy machine
)

// starterManifest is a pod whose first process sends packets from its first instruction on: an init container, which
// starts before all other containers.
// The init container floods and ends, then the pod becomes ready.
var starterManifest = template.Must(template.New("starter").Parse(`---
apiVersion: v1
kind: Pod
metadata:
  name: {{.Name}}
  namespace: default
  labels: {app: starter, starters: {{.Group}}}
  annotations: {k8s.v1.cni.cncf.io/networks: macvlan}
spec:
  nodeName: {{.Node}}
  initContainers:
  - {name: flood, image: {{.Image}}, args: [flood, -timeout, {{.Seconds}}s, "{{.To}}"]}
  containers:
  - {name: probe, image: {{.Image}}, args: [serve]}
`))

// starters is a group of pods that start together.
// Group is also the value of a label by which the pods are found.
type starters struct {
	group string // prefix of the names
	node  string
	count int
}

// names returns the names of the pods of the group.
func (s starters) names() (names []string) {
	for i := range s.count {
		names = append(names, fmt.Sprintf("%s-%d", s.group, i))
	}
	return names
}

// arrival counts the packets that arrived from a pod. It is a line of the output of hack/probe.
// Pods are told apart by the name in each packet.
type arrival struct {
	From        string // name of the pod; empty: the end of the counts
	Packets     int
	First, Last int64 // age of the sender's process at the first and the last packet, in microseconds
}

// window is the time between the first and the last packet that left the pod.
// It is 0 for a pod from which at most a packet arrived.
func (a arrival) window() time.Duration { return time.Duration(a.Last-a.First) * time.Microsecond }

// receive counts the packets that arrive at a pod, until the caller calls stop. It returns when the receiver listens.
// stop returns the arrivals, by sender.
func (c *cluster) receive(ctx context.Context, at *pod) (stop func() (map[string]arrival, error), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := c.command(ctx, c.inside(at, filepath.Join(c.dir, "bin/probe"), "count", "-udp", floodPort)...)
	var out bytes.Buffer
	ready := make(chan struct{})
	cmd.Stdout = &announced{to: &out, ready: ready}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	select {
	// The receiver listens. Otherwise the first packets would be lost, and a leak with them.
	case <-ready:
	case <-time.After(10 * time.Second):
		cancel()
		return nil, errors.Join(errors.New("the receiver does not start"), cmd.Wait())
	}
	return func() (map[string]arrival, error) {
		cancel()          // the receiver prints its counts and ends
		err := cmd.Wait() // as a rule, the error that it was ended
		arrivals := map[string]arrival{}
		decoder := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(out.Bytes(), []byte("ready\n"))))
		for decoder.More() {
			var a arrival
			if err := decoder.Decode(&a); err != nil {
				return nil, err
			}
			arrivals[a.From] = a
		}
		// The last line has no sender. Without it, the output is cut off.
		if _, whole := arrivals[""]; !whole {
			return nil, fmt.Errorf("the receiver does not say that it is done: %w", err)
		}
		return arrivals, nil
	}, nil
}

// announced is a writer that closes a channel at the first output, which a program makes when it is ready.
type announced struct {
	to    *bytes.Buffer
	ready chan struct{}
}

// Write implements io.Writer.
func (a *announced) Write(p []byte) (int, error) {
	if a.to.Len() == 0 && len(p) > 0 {
		close(a.ready)
	}
	return a.to.Write(p)
}

// launch starts all pods at the same time and waits until they run. Each pod floods the address.
// They are in a single manifest, so that the API server gets them nearly at the same time.
func (c *cluster) launch(ctx context.Context, to string, all ...starters) error {
	var manifest bytes.Buffer
	pods := []string{"wait", "--for=condition=Ready", "--timeout=" + launchPatience}
	for _, s := range all {
		for _, name := range s.names() {
			pods = append(pods, "pod/"+name)
			if err := starterManifest.Execute(&manifest, map[string]any{
				"Name": name, "Group": s.group, "Node": s.node, "Image": probeImage, "To": to, "Seconds": floodSeconds,
			}); err != nil {
				return err
			}
		}
	}
	file := filepath.Join(c.dir, "starters.yaml")
	if err := os.WriteFile(file, manifest.Bytes(), 0o600); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "apply", "-f", file); err != nil {
		return err
	}
	_, err := c.kubectl(ctx, pods...)
	return err
}

// tried returns an error unless each pod of the groups sent many packets, or tried to send them. A pod that
// never sent would otherwise look like a pod whose packets were all dropped.
func (c *cluster) tried(ctx context.Context, all ...starters) error {
	for _, s := range all {
		out, err := c.kubectl(ctx, "logs", "-l", "starters="+s.group, "-c", "flood", "--max-log-requests="+fmt.Sprint(s.count))
		if err != nil {
			return err
		}
		pods := 0
		for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); pods++ {
			var f struct{ Tried, Refused int }
			if err := decoder.Decode(&f); err != nil {
				return fmt.Errorf("pods %s say %q: %w", s.group, out, err)
			}
			if f.Tried < 100 {
				return fmt.Errorf("one of the pods %s tried to send %d packets", s.group, f.Tried)
			}
		}
		if pods != s.count {
			return fmt.Errorf("%d of %d pods %s say how many packets they sent", pods, s.count, s.group)
		}
	}
	return nil
}

// land deletes the pods, and does not wait for their ends.
func (c *cluster) land(ctx context.Context, all ...starters) error {
	args := []string{"delete", "--now", "--wait=false", "pod"}
	for _, s := range all {
		args = append(args, s.names()...)
	}
	_, err := c.kubectl(ctx, args...)
	return err
}

// metric scrapes the agent of a node and returns the sum of the samples whose name and labels start with the prefix.
// The prefix may end in the middle of the labels, such as hooks_total{result="enforced".
func (c *cluster) metric(ctx context.Context, node, prefix string) (float64, error) {
	out, err := c.scrape(ctx, node, "127.0.0.1:10349")
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			fields := strings.Fields(rest)
			var value float64
			if _, err := fmt.Sscan(fields[len(fields)-1], &value); err != nil {
				return 0, fmt.Errorf("metric %q: %w", line, err)
			}
			sum, found = sum+value, true
		}
	}
	if !found {
		return 0, fmt.Errorf("the agent of %s has no metric %s", node, prefix)
	}
	return sum, nil
}

// scrape reads the metrics at an address, from a node or the control plane.
// The address needs a port.
func (c *cluster) scrape(ctx context.Context, where, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	// bash opens the connection by itself, so the node needs no HTTP client.
	const ask = `exec 3<>"/dev/tcp/$0/$1"; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`
	out, err := c.output(ctx, c.in(where, "bash", "-c", ask, host, port)...)
	return string(out), err
}
