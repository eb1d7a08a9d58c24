package command

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// plugin is the kubectl plugin without kustomize.
var plugin = Program{Version: "v1", IsPlugin: true}

// liveCluster returns an API server with the pods and the policy of node.Cluster, and a kubeconfig with its context, whose name is
// live and whose namespace is ns.
func liveCluster(t *testing.T) (api *cluster.API, kubeconfig string) {
	t.Helper()
	m, err := informers.Input{Paths: []string{"-"}, Stdin: strings.NewReader(node.Cluster + node.Policy)}.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files := informers.NewFiles()
	if err := files.Load(m); err != nil {
		t.Fatal(err)
	}
	if api, err = cluster.NewAPI(files, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	kubeconfig = filepath.Join(t.TempDir(), "config")
	writeText(t, kubeconfig, `{apiVersion: v1, kind: Config, current-context: dead,
		clusters: [{name: live, cluster: {server: "`+api.URL()+`"}}, {name: dead, cluster: {server: "http://127.0.0.1:1"}}],
		contexts: [{name: live, context: {cluster: live, namespace: ns}}, {name: dead, context: {cluster: dead}}]}`)
	return api, kubeconfig
}

// TestPluginLive asks a live cluster, with the kubeconfig of the user: $KUBECONFIG, --context and -n work as in kubectl.
func TestPluginLive(t *testing.T) {
	withoutCluster(t)
	_, kubeconfig := liveCluster(t)
	t.Setenv("KUBECONFIG", kubeconfig)
	for _, tc := range []struct {
		args string
		code int
		want string // a part of the output
	}{
		{"explain --context live --from friend --to server --port 80", 0, "ALLOWED: 80/tcp from ns/friend to ns/server\n"},
		{"explain --context live --from server --to friend --port 80", 0, "ALLOWED: 80/tcp from ns/server to ns/friend\n"},
		{"explain --context live --pod server --from 10.9.0.3 --port 80", 0, "DENIED: 80/tcp, ingress on net1 of ns/server"},
		{"explain --context live -n default --from friend --to server --port 80", 1, "kubectl mnp: there is no pod default/friend in the API server"},
		{"explain --context live -n default --from ns/friend --to ns/server --port 80", 0, "ALLOWED"},
		{"explain matrix --context live", 0, "FROM \\ TO  friend  server\nfriend     .       all\nserver     all     .\n"},
		{"explain matrix --context liv", 1, "kubectl mnp: --context liv: the kubeconfig has no such context, did you mean live?\n"},
		{"render --context live --pod server", 0, "table inet multi_networkpolicy {"},
		{"explain --from friend --to server --port 80", 1, "kubectl mnp: list objects of kind Namespace: "},
		{"cleanup", 2, `kubectl mnp: unknown command "cleanup" for "kubectl mnp"`},
		{"exlain", 2, "did you mean explain?"},
		{"version", 0, "kubectl mnp v1 ("},
		{"--version", 0, "kubectl mnp version v1\n"},
		{"explain --help", 0, "\n  kubectl mnp explain [-f FILE"},
		{"", 0, "\n  kubectl mnp explain matrix -n shop\n"},
		{"__complete explain --context live --pod f", 0, "friend\n:4"},
		{"__complete explain --context live --from n", 0, "ns/friend\nns/server\n"},
		{"__complete explain --context live --network n", 0, "ns/net\n"},
		{"__complete explain --context live -n n", 0, "ns\n"},
		{"__complete explain --context l", 0, "live\n"},
		{"__complete explain --context dead --pod f", 0, ":4\n"},
		{"__complete explain -o j", 0, "json\n"},
	} {
		stdout, stderr, code := run(plugin, "", strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.want) {
			t.Errorf("%s: exit code %d, %s%s, want %q", tc.args, code, stdout, stderr, tc.want)
		}
	}
}

// TestReachJSON checks the JSON form of the answer about two pods.
func TestReachJSON(t *testing.T) {
	withoutCluster(t)
	stdout, stderr, code := run(plugin, node.Cluster+node.Policy, "explain", "-f", "-", "--from", "ns/friend", "--to", "ns/server", "--port", "udp/53", "-o", "json")
	var got explain.Reach
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 || stderr != "" {
		t.Fatal(err, code, stderr)
	}
	if got.Verdict != explain.Allowed || len(got.Paths) != 1 || got.Paths[0].Egress.Verdict != explain.Allowed || got.Packet != "53/udp" {
		t.Errorf("%+v", got)
	}
}

// TestKustomizeFlag checks that -k reads the manifests that the program's kustomize builds.
func TestKustomizeFlag(t *testing.T) {
	withoutCluster(t)
	p := plugin
	p.Kustomize = func(dir string) ([]byte, error) {
		if dir != "overlay" {
			return nil, errors.New("no kustomization")
		}
		return []byte(node.Cluster + node.Policy), nil
	}
	stdout, stderr, code := run(p, "", "explain", "-k", "overlay", "-n", "ns", "--from", "friend", "--to", "server", "--port", "80")
	if code != 0 || !strings.HasPrefix(stdout, "ALLOWED") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if _, stderr, code := run(p, "", "explain", "-k", "other", "--from", "a", "--to", "b", "--port", "80"); code != 1 ||
		stderr != "kubectl mnp: read manifests: kustomize other: no kustomization\n" {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// TestNamespaceOfManifests checks that -n is the namespace of objects without one, as in kubectl apply.
func TestNamespaceOfManifests(t *testing.T) {
	withoutCluster(t)
	text := strings.ReplaceAll(node.Cluster+node.Policy, "namespace: ns, ", "")
	stdout, stderr, code := run(plugin, text, "explain", "-f", "-", "-n", "ns", "--from", "ns/friend", "--to", "ns/server", "--port", "80")
	if code != 0 || !strings.HasPrefix(stdout, "ALLOWED") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
}

// TestHelp checks that the help of each command has examples that name the program, and that the root lists the commands in groups.
func TestHelp(t *testing.T) {
	for _, p := range []Program{{}, plugin} {
		stdout, _, code := run(p, "", "--help")
		for _, want := range []string{"\nAsk about policies, on any machine:\n  drops       ", "\nAbout the program:\n", "\nExamples:\n  " + p.name() + " "} {
			if code != 0 || !strings.Contains(stdout, want) {
				t.Errorf("no %q in %s", want, stdout)
			}
		}
		for _, cmd := range p.Root().Commands() {
			if cmd.GroupID == "" || !strings.HasPrefix(cmd.Example, "  "+p.name()+" "+cmd.Name()) {
				t.Errorf("%s: group %q, example %q", cmd.Name(), cmd.GroupID, cmd.Example)
			}
		}
	}
}

// TestColors checks that only a terminal gets colors, and none with NO_COLOR.
func TestColors(t *testing.T) {
	terminal := openTerminal(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	plain, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if !colorsOf(terminal) || colorsOf(plain) || colorsOf(&strings.Builder{}) {
		t.Error("only a terminal has colors")
	}
	if got := colorsOf(terminal).verdict(explain.Denied); got != "\x1b[31mDENIED\x1b[0m" {
		t.Errorf("%q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if colorsOf(terminal) {
		t.Error("colors in spite of NO_COLOR")
	}
}

// openTerminal returns the master of a pseudo-terminal, which is a terminal itself.
func openTerminal(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
