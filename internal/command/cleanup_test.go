package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// cleanUp runs cleanup and returns its output. Lines of stderr have "! " before them.
func cleanUp(t *testing.T, want int, args ...string) []string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Main("v1", append([]string{"cleanup"}, args...), &stdout, &stderr); code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	for line := range strings.Lines(stderr.String()) {
		lines = append(lines, "! "+strings.TrimSuffix(line, "\n"))
	}
	return lines
}

func wantLines(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Cleanup on a node: a pod with a table of an agent that is gone, a pod without a table, a pod on the host's network, and a pod
// with an unknown network namespace.
func TestCleanup(t *testing.T) {
	network := lab.ForTest(t)
	hosts := map[string]*lab.Host{}
	for _, name := range []string{"with", "without"} {
		h, err := network.Bare(name)
		if err != nil {
			t.Fatal(err)
		}
		hosts[name] = h
	}
	features, err := engine.Probe()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := engine.OpenNamespace("shop/with", hosts["with"].NetNS(), engine.Options{Own: features.Owner})
	if err != nil {
		t.Fatal(err)
	}
	isolated := engine.NewRuleset(nil, []*engine.Chain{{Name: "prerouting", Hook: engine.HookPrerouting}})
	if err := agent.Apply(t.Context(), engine.Tables{engine.Inet: isolated, engine.Bridge: isolated}); err != nil {
		t.Fatal(err)
	}
	if err := agent.Close(); err != nil {
		t.Fatal(err)
	}

	dir, err := os.MkdirTemp("", "cri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "cri.sock")
	runtime := cluster.NewRuntime(socket)
	t.Cleanup(runtime.Stop)
	runtime.Set(
		cluster.Sandbox{ID: "1", UID: "1", Namespace: "shop", Name: "without", Info: cluster.InfoOf(hosts["without"].NetNS())},
		cluster.Sandbox{ID: "2", UID: "2", Namespace: "shop", Name: "with", Info: cluster.InfoOf(hosts["with"].NetNS())},
		cluster.Sandbox{ID: "3", UID: "3", Namespace: "kube-system", Name: "host", HostNetwork: true},
		cluster.Sandbox{ID: "4", UID: "4", Namespace: "shop", Name: "ended", NotReady: true},
		cluster.Sandbox{ID: "5", UID: "5", Namespace: "shop", Name: "lost", Info: cluster.InfoOf("/nonexistent")},
	)
	if err := runtime.Start(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, []string{
		"shop/lost: not removed: /nonexistent: no such file or directory",
		"shop/with: removed",
		"shop/without: has no table",
		"! multi-networkpolicy-nftables: cleanup failed for 1 of 3 network namespaces",
	}, cleanUp(t, 1, "--container-runtime-endpoint", socket))
	if left, err := nft.Run(hosts["with"], "", "list", "tables"); err != nil || left != "" {
		t.Errorf("left: %s %v", left, err)
	}
	paths := []string{hosts["with"].NetNS(), hosts["without"].NetNS()}
	wantLines(t, []string{paths[0] + ": has no table", paths[1] + ": has no table"},
		cleanUp(t, 0, "--netns", paths[0], "--netns", paths[1]))
}

// Cleanup also removes the table of a killed trace, which stays on kernels before 5.12.
func TestCleanupAfterTrace(t *testing.T) {
	pod, err := lab.ForTest(t).Bare("pod")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{engine.TableName, trace.TableName, "of_somebody_else"} {
		nft.MustRun(t, pod, "", "add", "table", "inet", name)
	}
	wantLines(t, []string{pod.NetNS() + ": removed; what a killed trace left is removed"}, cleanUp(t, 0, "--netns", pod.NetNS()))
	if got := nft.MustRun(t, pod, "", "list", "tables"); got != "table inet of_somebody_else\n" {
		t.Errorf("tables: %s", got)
	}
	nft.MustRun(t, pod, "", "add", "table", "inet", trace.TableName)
	wantLines(t, []string{pod.NetNS() + ": has no table; what a killed trace left is removed"}, cleanUp(t, 0, "--netns", pod.NetNS()))
}

// Cleanup cannot remove the tables of a running agent. After the agent has ended, it removes them.
func TestCleanupBesideAgent(t *testing.T) {
	features, err := engine.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if !features.Owner {
		t.Skip("SKIPPED: this kernel has no tables that have an owner (6.9)")
	}
	r := node.New(t)
	r.Load(node.Cluster + node.Policy)
	r.StartRuntime("server")
	agent := startProcess(t, r)
	r.IsEnforced(true)
	socket := r.RuntimeSocket
	got := cleanUp(t, 1, "--container-runtime-endpoint", socket)
	wantLines(t, []string{
		"ns/server: not removed: operation not permitted: the table belongs to a running agent, " +
			"which must be stopped first (or this process has no CAP_NET_ADMIN there)",
		"! multi-networkpolicy-nftables: cleanup failed for 1 of 1 network namespaces",
	}, got)
	r.Stays("enforced, cleanup or not", true, false)
	agent.end(syscall.SIGTERM)
	r.Stays("enforced without the agent", true, false)
	wantLines(t, []string{"ns/server: removed"}, cleanUp(t, 0, "--container-runtime-endpoint", socket))
	r.Stays("open", true, true)
}
