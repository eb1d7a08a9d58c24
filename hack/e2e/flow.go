package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// flow is a direction of packets between two pods, over one network, to one address and service. It is the key of
// results.
// An example: from web to database over net1, to 10.10.0.20, service tcp/5432.
type flow struct {
	from, to string // names of the pods
	network  string // name of the interface in both pods
	address  netip.Addr
	service  string // protocol and port, for example "tcp/80"
}

// services are the services of each pod: some are allowed by the example policies, others differ from these only in
// protocol or port.
var services = []string{"tcp/80", "tcp/5432", "tcp/8080", "tcp/9090", "udp/53", "udp/5432"}

// target is the receiver of the flow in the syntax of hack/probe.
// An example: tcp://10.10.0.20:5432.
func (f flow) target() string {
	protocol, port, _ := strings.Cut(f.service, "/")
	return protocol + "://" + net.JoinHostPort(f.address.String(), port)
}

// flows returns all flows between two different pods, over all networks that both pods have.
// The pod from sends; a pod with two addresses on a network is the receiver of a flow for each.
func flows(pods map[string]*pod, from string) []flow {
	var all []flow
	for _, to := range names(pods) {
		if to == from {
			continue
		}
		for _, network := range []string{"eth0", "net1", "net2"} {
			if pods[from].addresses[network] == nil {
				continue
			}
			for _, address := range pods[to].addresses[network] {
				for _, service := range services {
					all = append(all, flow{from, to, network, address, service})
				}
			}
		}
	}
	return all
}

// probe sends packets on all flows between the pods, from all pods at once. It returns the result of each flow: "open",
// "timeout", or another reason.
// All pods send at the same time, which takes as long as the slowest pod.
func (c *cluster) probe(ctx context.Context, pods map[string]*pod) (map[flow]string, error) {
	results := map[flow]string{}
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
	)
	for from := range pods {
		wg.Go(func() {
			some, err := c.probeFrom(ctx, pods, from)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				first = fmt.Errorf("probe from %s: %w", from, err)
			}
			for f, result := range some {
				results[f] = result
			}
		})
	}
	wg.Wait()
	return results, first
}

// probeFrom sends packets from one pod to all of its targets. The probe program prints a line of JSON for each target,
// in the order of the arguments.
func (c *cluster) probeFrom(ctx context.Context, pods map[string]*pod, from string) (map[flow]string, error) {
	all := flows(pods, from)
	args := []string{filepath.Join(c.dir, "bin/probe"), "dial", "-timeout", time.Second.String()}
	for _, f := range all {
		args = append(args, f.target())
	}
	// The exit code of the probe reports a target without an answer. The caller judges the results.
	out, err := c.output(ctx, c.inside(pods[from], args...)...)
	results := map[flow]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var answer struct{ Result string }
		if err := decoder.Decode(&answer); err != nil {
			return nil, err
		}
		results[all[len(results)]] = answer.Result
	}
	if len(results) != len(all) {
		return nil, fmt.Errorf("%d answers for %d targets: %w", len(results), len(all), err)
	}
	return results, nil
}

// leak sends datagrams on a flow that must be closed, every few milliseconds, until the caller calls stop. stop returns
// an error if any answer came back.
// A datagram every 5 ms finds gaps of some milliseconds, such as a table that is deleted and created again.
func (c *cluster) leak(ctx context.Context, pods map[string]*pod, f flow) (stop func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	args := []string{filepath.Join(c.dir, "bin/probe"), "dial", "-timeout", "3m", "-interval", "5ms", f.target()}
	cmd := c.command(ctx, c.inside(pods[f.from], args...)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return func() error {
		// The signal reaches the probe, which prints the answer that it has.
		cancel() // the probe prints its result and ends
		err := cmd.Wait()
		var answer struct{ Result string }
		if json.Unmarshal(out.Bytes(), &answer) != nil {
			return fmt.Errorf("no answer from the probe: %w", err)
		}
		if answer.Result != "timeout" {
			return fmt.Errorf("%s -> %s over %s, %s: %s", f.from, f.to, f.network, f.service, answer.Result)
		}
		return nil
	}, nil
}
