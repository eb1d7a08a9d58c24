package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// patience limits how long the test waits for a condition.
const patience = 45 * time.Second

// policies are the examples of manifests/, unchanged.
var policies = []string{
	"-f", "manifests/examples/web-policy.yaml",
	"-f", "manifests/examples/frontend-egress.yaml",
	"-f", "manifests/examples/deny-all.yaml",
}

// scenario holds the state that the steps share.
type scenario struct {
	*cluster
	*report
	// The test pods by name, as of the last step that changed them.
	pods map[string]*pod
}

// play runs all steps. It returns an error if the next step cannot run. Failed checks go to the report.
// The order of steps matters: each starts from the state that the step before it left.
func (s *scenario) play(ctx context.Context, o options) error {
	transcript := func(ctx context.Context) error { return player{s}.transcript(ctx, o.update) }
	steps := []func(context.Context) error{
		transcript, // installs the agent on a new cluster, and removes everything
		s.before, s.deploy, s.schema, s.enforce, s.restart, s.enforcement, s.sandboxAnew, s.release, s.refuse, s.firstInstant,
		s.documented, // removes the agent and all tables at its end
		s.nodeTaint, s.prometheus, s.migration,
		s.audit, // last: it judges the requests of the whole run
	}
	switch {
	case o.noAgent:
		steps = []func(context.Context) error{s.before}
	case o.transcript:
		steps = steps[:1]
	case o.migration:
		steps = []func(context.Context) error{s.migration}
	}
	diagnosed := false
	for _, step := range steps {
		err := step(ctx)
		// Once, and before later steps change the state of the cluster.
		if !diagnosed && (err != nil || s.failed > 0) {
			s.diagnose(s.pods)
			diagnosed = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// must runs kubectl. Its error ends the run, because the next steps need the effect.
func (s *scenario) must(ctx context.Context, args ...string) error {
	_, err := s.kubectl(ctx, args...)
	return err
}

// before starts the pods and checks that each pod reaches all others.
func (s *scenario) before(ctx context.Context) error {
	if err := s.must(ctx, "apply", "-f", "hack/e2e/networks.yaml", "-f", "hack/e2e/pods.yaml"); err != nil {
		return err
	}
	err := s.eventually(ctx, func() (err error) {
		s.pods, err = s.testPods(ctx)
		return err
	})
	s.check("pods start", err)
	if err != nil {
		return err
	}
	s.reach(ctx, "before", everything)
	return nil
}

// deploy starts the agent as a user does. Without policies the agent makes no table.
// deploy uses the manifests of the release, or those of the work tree with the image of this run. Tables appear only with policies.
func (s *scenario) deploy(ctx context.Context) error {
	if err := s.must(ctx, append([]string{"apply"}, s.manifests()...)...); err != nil {
		return err
	}
	if err := s.agentReady(ctx, "agent starts"); err != nil {
		return err
	}
	if err := s.must(ctx, "wait", "--for=condition=Established", "crd/multi-networkpolicies.k8s.cni.cncf.io"); err != nil {
		return err
	}
	s.check("no policy, no table", s.tables(ctx, s.pods))
	return nil
}

// agentReady waits until an agent runs on each node, as a check.
func (s *scenario) agentReady(ctx context.Context, check string) error {
	_, err := s.kubectl(ctx, "rollout", "status", "daemonset/multi-networkpolicy-nftables", "-n", namespace, "--timeout", patience.String())
	s.check(check, err)
	return err
}

// enforce applies the example policies.
// The policies of the examples select web, frontend and database.
func (s *scenario) enforce(ctx context.Context) error {
	if err := s.must(ctx, append([]string{"apply"}, policies...)...); err != nil {
		return err
	}
	s.reach(ctx, "enforced", examples)
	s.check("enforced: selected pods have a table, others none", s.tables(ctx, s.pods, "web", "frontend", "database"))
	return nil
}

// restart deletes the agent of a node. Its rules must stay in force, and the next agent must take over the table and
// change nothing in it.
// The flow that must stay closed is tried without a pause, and the handles of the table tell whether it was made
// again.
func (s *scenario) restart(ctx context.Context) error {
	web := s.pods["web"]
	was, err := s.handles(ctx, web)
	if err != nil {
		return err
	}
	closed := flow{"other", "web", "net1", web.addresses["net1"][0], "udp/53"}
	// A flow that the policies deny is tried during the whole restart.
	// From here to stop, every answer on the closed flow is a leak.
	stop, err := s.leak(ctx, s.pods, closed)
	if err != nil {
		return err
	}
	err = s.must(ctx, "delete", "pod", "-n", namespace, "-l", agentLabel, "--field-selector", "spec.nodeName="+web.node)
	if err == nil {
		err = s.agentReady(ctx, "restart: a new agent starts")
	}
	s.reach(ctx, "restart", examples)
	s.check("restart: nothing leaks meanwhile", stop())
	if err != nil {
		return err
	}
	// A table that is made again has other handles, also with the same content.
	is, err := s.handles(ctx, web)
	if err == nil && is != was {
		err = fmt.Errorf("handles were %s, are %s", was, is)
	}
	s.check("restart: the table stays as it was", err)
	return nil
}

// sandboxAnew kills the pause process of a pod, so that the kubelet creates a new sandbox for the same pod.
// The UID stays, so the agent must notice the new sandbox by itself.
func (s *scenario) sandboxAnew(ctx context.Context) error {
	old := s.pods["web"]
	if _, err := s.output(ctx, s.in("cp", "kill", "-KILL", fmt.Sprint(old.sandbox))...); err != nil {
		return err
	}
	err := s.eventually(ctx, func() error {
		pods, err := s.testPods(ctx)
		if err != nil {
			return err
		}
		if web := pods["web"]; web == nil || web.sandbox == old.sandbox || web.uid != old.uid {
			return fmt.Errorf("pod web: was %+v, is %+v", old, web)
		}
		s.pods = pods
		return nil
	})
	s.check("new sandbox: the pod is back under its old UID", err)
	if err != nil {
		return err
	}
	s.reach(ctx, "new sandbox", examples)
	s.check("new sandbox: selected pods have a table, others none", s.tables(ctx, s.pods, "web", "frontend", "database"))
	return nil
}

// release deletes the policies. All flows pass again, and the tables are gone.
func (s *scenario) release(ctx context.Context) error {
	if err := s.must(ctx, append([]string{"delete"}, policies...)...); err != nil {
		return err
	}
	s.reach(ctx, "released", everything)
	s.check("released: no table is left", s.eventually(ctx, func() error { return s.tables(ctx, s.pods) }))
	return nil
}

// refuse stores a policy with an invalid field. The policy isolates, its valid parts allow packets, and an Event names the field.
// It comes by a cluster that had a policy before the CRD of this project was installed.
func (s *scenario) refuse(ctx context.Context) error {
	file := []string{"-f", "hack/e2e/invalid-policy.yaml"}
	if err := s.store(ctx, file[1]); err != nil {
		return err
	}
	s.reach(ctx, "invalid policy", invalid)
	s.check("invalid policy: a Warning names the field", s.eventually(ctx, func() error {
		out, err := s.kubectl(ctx, "get", "events", "--field-selector", "type=Warning,involvedObject.name=invalid-policy",
			"-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(string(out), "ipBlock") {
			err = fmt.Errorf("got %q", out)
		}
		return err
	}))
	if err := s.must(ctx, append([]string{"delete"}, file...)...); err != nil {
		return err
	}
	s.check("invalid policy: no table is left", s.eventually(ctx, func() error { return s.tables(ctx, s.pods) }))
	return nil
}

// eventually retries until there is no error or patience is over. It returns the last error.
func (s *scenario) eventually(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// reach probes all flows until the results are as expected or patience is over. It reports the last results, with a check for
// each pair of pods and network.
// A flow that is not as expected may be late: probes repeat until all are as expected.
func (s *scenario) reach(ctx context.Context, phase string, want func(flow) bool) {
	var results map[flow]string
	err := s.eventually(ctx, func() (err error) {
		if results, err = s.probe(ctx, s.pods); err != nil {
			return err
		}
		for f, result := range results {
			if (result == "open") != want(f) {
				// The failed flows themselves are reported below, from the last results.
				return errors.New("not all flows are as they should be")
			}
		}
		return nil
	})
	if results == nil {
		s.check(phase+": packets can be sent", err)
		return
	}
	s.verdicts(phase, results, want)
	s.note("%s", phase)
}

// verdicts makes a check for each pair of pods and network. A closed flow has no answer at all; a refusal is an answer,
// so it is wrong in both cases.
func (s *scenario) verdicts(phase string, results map[flow]string, want func(flow) bool) {
	for _, from := range names(s.pods) {
		type link struct{ to, network string }
		var links []link
		open, closed, wrong := map[link]int{}, map[link]int{}, map[link][]error{}
		for _, f := range flows(s.pods, from) {
			l := link{f.to, f.network}
			if open[l]+closed[l] == 0 {
				links = append(links, l)
			}
			expected := "timeout"
			if closed[l]++; want(f) {
				expected = "open"
				closed[l]--
				open[l]++
			}
			if results[f] != expected {
				wrong[l] = append(wrong[l], fmt.Errorf("%s is %s, want %s", f.target(), results[f], expected))
			}
		}
		for _, l := range links {
			s.check(fmt.Sprintf("%s: %s -> %s over %s, %d open, %d closed", phase, from, l.to, l.network, open[l], closed[l]),
				errors.Join(wrong[l]...))
		}
	}
}
