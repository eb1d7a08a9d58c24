package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// enforcementRow is the part of a row of the command enforcement that the test reads.
type enforcementRow struct {
	State, Policy, Pod, Node, Since string
	Reasons                         []struct{ Reason, Message string }
}

// String returns the pod, the node, the state and the reasons.
func (r enforcementRow) String() string {
	words := []string{r.Pod, r.Node, r.State}
	for _, reason := range r.Reasons {
		words = append(words, reason.Reason)
	}
	return strings.Join(words, " ")
}

// enforcement asks with the command of the same name where a policy is enforced, through the API server and the kubelets: while
// a pod is on a network that is not isolated, while the kernel refuses a pod, while a node has no agent, and when all is well.
func (s *scenario) enforcement(ctx context.Context) error {
	err := s.eventually(ctx, func() error { return s.must(ctx, "apply", "-f", "hack/e2e/enforcement.yaml") })
	if err != nil {
		return err
	}
	if err := s.must(ctx, "wait", "-n", "enforcement", "--for=condition=Ready", "pod", "--all", "--timeout", patience.String()); err != nil {
		return err
	}
	reader, err := s.kubeconfigOf(ctx, "enforcement", "reader")
	if err != nil {
		return err
	}
	says := func(name string, code int, want ...string) {
		s.check("enforcement: "+name, s.eventually(ctx, func() error { return s.enforcedAre(ctx, reader, code, want) }))
	}
	const odd = "odd node1 NotEnforced unsupported_plugin"
	says("a pod on a network that is not isolated", 1, odd, "near node1 Enforced", "far node2 Enforced")

	// The agent on node1 cannot open the network namespace of the pod: another kind of namespace is mounted there. Node2 gets no agent.
	near, err := s.testPods(ctx, "-n", "enforcement", "--field-selector", "metadata.name=near")
	if err != nil {
		return err
	}
	name, err := s.output(ctx, s.in("node1", "ip", "netns", "identify", fmt.Sprint(near["near"].sandbox))...)
	if err != nil {
		return err
	}
	netns := "/run/netns/" + strings.TrimSpace(string(name))
	if _, err := s.output(ctx, s.in("node1", "mount", "--bind", "/proc/self/ns/uts", netns)...); err != nil {
		return err
	}
	place := func(node string) error {
		return s.must(ctx, "patch", "daemonset", programName, "-n", namespace, "-p",
			`{"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": `+node+`}}}}}`)
	}
	if err := place(`"node1"`); err != nil {
		return err
	}
	says("a pod that the kernel refuses, and a node without an agent", 1, odd, "near node1 NotEnforced kernel_error", "far node2 Unknown no_agent")
	_, err = s.output(ctx, s.in("node1", "umount", netns)...)
	if err := errors.Join(err, place("null"), s.must(ctx, "delete", "pod", "odd", "-n", "enforcement")); err != nil {
		return err
	}
	if err := s.agentReady(ctx, "enforcement: the agents are back"); err != nil {
		return err
	}
	says("all is well", 0, "near node1 Enforced", "far node2 Enforced")
	return s.must(ctx, "delete", "--ignore-not-found", "-f", "hack/e2e/enforcement.yaml")
}

// enforcedAre returns an error unless the command enforcement ends with the code and has exactly these rows.
func (s *scenario) enforcedAre(ctx context.Context, kubeconfig string, code int, want []string) error {
	out, err := s.output(ctx, s.in("cp", programName, "enforcement", "--kubeconfig", kubeconfig, "enforcement/closed", "-o", "json")...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	var report struct{ Enforcement []enforcementRow }
	if e := json.Unmarshal(out, &report); e != nil {
		return errors.Join(err, e)
	}
	var rows []string
	for _, r := range report.Enforcement {
		rows = append(rows, r.String())
		if (r.State == "Enforced") != (r.Since != "") && r.State != "NotEnforced" {
			return fmt.Errorf("%s since %q", r, r.Since)
		}
	}
	slices.Sort(rows)
	slices.Sort(want)
	if got != code || !slices.Equal(rows, want) {
		return fmt.Errorf("exit code %d, want %d; got %q, want %q\n%s", got, code, rows, want, out)
	}
	return nil
}

// kubeconfigOf writes a kubeconfig of a service account, and returns its path.
func (s *scenario) kubeconfigOf(ctx context.Context, namespace, account string) (string, error) {
	token, err := s.kubectl(ctx, "create", "token", account, "-n", namespace)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, "run", account+".kubeconfig")
	server, err := s.kubectl(ctx, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"set-cluster", "test", "--server", string(server), "--insecure-skip-tls-verify"},
		{"set-credentials", account, "--token", strings.TrimSpace(string(token))},
		{"set-context", "test", "--cluster", "test", "--user", account},
		{"use-context", "test"},
	} {
		if _, err := s.kubectl(ctx, append([]string{"config", "--kubeconfig", path}, args...)...); err != nil {
			return "", err
		}
	}
	return path, nil
}
