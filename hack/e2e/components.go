package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
)

// nodeTaint deploys the agent to nodes with the taint that keeps pods away until the agent runs, as if the kubelet had
// registered them with the taint.
// The taint must be on the nodes before the agent starts, and gone when it is ready.
func (s *scenario) nodeTaint(ctx context.Context) error {
	const taint = "multi-networkpolicy/agent-not-ready"
	if err := s.must(ctx, "taint", "nodes", "--all", taint+":NoSchedule"); err != nil {
		return err
	}
	s.check("node-taint: it is there before the agent", s.tainted(ctx, taint, len(nodes)))
	if err := s.deployAnew(ctx, "node-taint"); err != nil {
		return err
	}
	s.check("node-taint: the agent takes it from its node", s.eventually(ctx, func() error { return s.tainted(ctx, taint, 0) }))
	s.note("node-taint")
	return nil
}

// tainted returns an error unless the given number of nodes has the taint.
func (s *scenario) tainted(ctx context.Context, taint string, want int) error {
	out, err := s.kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}")
	if got := strings.Count(string(out), taint); err == nil && got != want {
		err = fmt.Errorf("%d nodes have it, want %d", got, want)
	}
	return err
}

// prometheus finds and scrapes the agents in the way that the PodMonitor describes to the Prometheus operator. Only the
// CRDs of the operator are there, not the operator.
// The test reads the PodMonitor and the pods, and computes the targets from them as the operator would.
func (s *scenario) prometheus(ctx context.Context) error {
	if err := s.must(ctx, "apply", "-f", "hack/e2e/operator-crds.yaml"); err != nil {
		return err
	}
	if err := s.must(ctx, "wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com", "crd/prometheusrules.monitoring.coreos.com"); err != nil {
		return err
	}
	if err := s.deployAnew(ctx, "prometheus"); err != nil {
		return err
	}
	// The operator would watch the PodMonitor and the pods; a single look is enough here.
	targets, err := s.targets(ctx)
	if err == nil && len(targets) != len(nodes) {
		err = fmt.Errorf("they are %q", targets)
	}
	s.check("prometheus: the PodMonitor leads to one target on each node", err)
	for _, target := range targets {
		metrics, err := s.scrape(ctx, "cp", target)
		if err == nil && !strings.Contains(metrics, "multi_networkpolicy_build_info{") {
			err = fmt.Errorf("it says %q", metrics)
		}
		s.check("prometheus: metrics at "+target, err)
	}
	s.note("prometheus")
	return nil
}

// deployAnew deletes all agents and then starts the agent with a component. It waits until the agent is ready.
// --cascade=foreground waits until the pods are gone.
func (s *scenario) deployAnew(ctx context.Context, component string) error {
	err := s.must(ctx, "delete", "daemonset", "-n", namespace, "--all", "--cascade=foreground")
	if err == nil {
		err = s.must(ctx, "apply", "-k", "hack/e2e/"+component)
	}
	if err != nil {
		return err
	}
	return s.agentReady(ctx, component+": agent starts")
}

// targets returns the addresses that the PodMonitor selects, like the operator: the address of each selected pod with
// each port of the endpoint's name.
// A port that the PodMonitor names must exist in the pod, or the pod has no target.
func (s *scenario) targets(ctx context.Context) (targets []string, err error) {
	var monitor struct {
		Spec struct {
			Selector            struct{ MatchLabels map[string]string }
			PodMetricsEndpoints []struct{ Port string }
		}
	}
	var pods struct {
		Items []struct {
			Spec struct {
				Containers []struct {
					Ports []struct {
						Name          string
						ContainerPort int
					}
				}
			}
			Status struct{ PodIP string }
		}
	}
	if err := s.read(ctx, &monitor, "podmonitor", "multi-networkpolicy-nftables"); err != nil {
		return nil, err
	}
	if len(monitor.Spec.PodMetricsEndpoints) != 1 {
		return nil, errors.New("the PodMonitor has not one endpoint")
	}
	var labels []string
	for key, value := range monitor.Spec.Selector.MatchLabels {
		labels = append(labels, key+"="+value)
	}
	if err := s.read(ctx, &pods, "pods", "-l", strings.Join(labels, ",")); err != nil {
		return nil, err
	}
	for _, p := range pods.Items {
		for _, c := range p.Spec.Containers {
			for _, port := range c.Ports {
				if port.Name == monitor.Spec.PodMetricsEndpoints[0].Port {
					targets = append(targets, net.JoinHostPort(p.Status.PodIP, fmt.Sprint(port.ContainerPort)))
				}
			}
		}
	}
	return targets, nil
}

// read reads objects as JSON, from the namespace of the agent if they have a namespace.
// to gets the JSON of the object or of the list.
func (s *scenario) read(ctx context.Context, to any, args ...string) error {
	out, err := s.kubectl(ctx, append([]string{"get", "-n", namespace, "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, to)
}
