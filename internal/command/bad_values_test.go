package command

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// goWords matches the names of Go's packages, types and functions that errors of libraries have.
var goWords = regexp.MustCompile(`strconv\.|ParseUint|ParseInt|ParseBool|netip|ParseAddr|ParsePrefix|json:|unmarshal|yaml:|invalid syntax|` +
	`Go (value|struct)|reflect|%!|syntax error in pattern \*|\*\w+\.\w|time: |goroutine|arg\(s\)|bare "`)

// run runs a program and returns its output and exit code.
func run(p Program, stdin string, args ...string) (stdout, stderr string, code int) {
	var out, err bytes.Buffer
	code = p.Main(args, strings.NewReader(stdin), &out, &err)
	return out.String(), err.String(), code
}

// isPlain fails the test unless a failed command has printed a single line without names of Go.
func isPlain(t *testing.T, stdout, stderr string, code int) {
	t.Helper()
	if code == 0 && stderr == "" {
		return // the value is valid
	}
	if code != 1 && code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") || goWords.MatchString(stderr) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// withoutCluster sets an environment in which no cluster can be found.
func withoutCluster(t *testing.T) {
	t.Helper()
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HOME", t.TempDir())
}

// TestBadValues gives bad values to each flag of each command.
func TestBadValues(t *testing.T) {
	withoutCluster(t)
	tried := 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		path := strings.Fields(cmd.CommandPath())[1:]
		if cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion" || cmd.Name() == "help" {
			return
		}
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
		check := func(f *pflag.Flag) {
			for _, value := range []string{"", "\t", "{", "a,,b", "99999999999999999999", "-1", "1.5", "=", `"`} {
				if f.Value.Type() != "bool" && cmd.Name() == "demo" && f.Name == "vmodule" {
					continue // an empty vmodule is valid, and the demo would run
				}
				tried++
				t.Run(strings.Join(append(path, "--"+f.Name+"="+value), " "), func(t *testing.T) {
					stdout, stderr, code := run(Program{}, "", append(path, "--"+f.Name+"="+value)...)
					if cmd.Name() == "cleanup" {
						stdout = "" // a line for each network namespace
					}
					isPlain(t, stdout, stderr, code)
				})
			}
		}
		cmd.LocalFlags().VisitAll(check)
	}
	walk(Root(""))
	if tried < 500 {
		t.Errorf("only %d values", tried)
	}
	for _, args := range [][]string{
		{"explain", "--no-such-flag"}, {"explain", "-x"}, {"explain", "--pod"}, {"explain", "-"}, {"render", "a", "b"}, {"explain", "diff", "a"}, {"nonsense"}, {"---"},
	} {
		stdout, stderr, code := run(Program{}, "", args...)
		if isPlain(t, stdout, stderr, code); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

// TestBadManifests gives bad manifests to a command.
func TestBadManifests(t *testing.T) {
	withoutCluster(t)
	policy := func(spec string) string {
		return "{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {name: p, namespace: shop}, spec: " + spec + "}"
	}
	for text, want := range map[string]string{
		"[":    "invalid YAML",
		"text": "must be a map, not a string",
		"- 1":  "must be a map, not a list",
		"a: b": "an object without a kind",
		"{apiVersion: v1, kind: Pod, metadata: 1}":                                             "field metadata must be a map, not a number",
		"{apiVersion: v1, kind: Pod, metadata: {name: a, labels: [a]}}":                        "field metadata.labels must be a map, not a list",
		"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: x}}":              "Pod a: field spec.containers must be a list, not a string",
		"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {hostNetwork: 1}}":             "Pod a: field spec.hostNetwork must be true or false, not a number",
		"{apiVersion: v1, kind: Pod, metadata: {name: a, creationTimestamp: x}}":               `Pod: "x" is not a time such as`,
		"{apiVersion: 1, kind: Pod}":                                                           "field apiVersion must be a string, not a number",
		"{apiVersion: k8s.cni.cncf.io/v1beta2, kind: MultiNetworkPolicy, metadata: {name: p}}": "did you mean MultiNetworkPolicy of k8s.cni.cncf.io/v1beta1?",
		policy("{ingress: [{prots: []}]}"):                                                     "MultiNetworkPolicy shop/p: unknown field spec.ingress[0].prots, did you mean ports?",
		policy("{podSelector: {matchlabels: {}}}"):                                             "unknown field spec.podSelector.matchlabels, did you mean matchLabels?",
		policy("{egress: [{to: [{ipblock: {}}]}]}"):                                            "unknown field spec.egress[0].to[0].ipblock, did you mean ipBlock?",
	} {
		for _, source := range []string{"-", writeTemp(t, text)} {
			stdout, stderr, code := run(Program{}, text, "render", "-f", source, "--pod", "shop/web")
			if isPlain(t, stdout, stderr, code); code != 1 || !strings.Contains(stderr, want) {
				t.Errorf("%s: exit code %d, %q, want %q", text, code, stderr, want)
			}
			if source != "-" && !strings.Contains(stderr, source) {
				t.Errorf("%q does not name the file", stderr)
			}
		}
	}
	// An invalid value allows nothing, and is a warning.
	stdout, stderr, code := run(Program{}, policy("{podSelector: {matchLabels: 1}, ingress: [{ports: [{port: {}}], from: [{ipBlock: 7}]}]}")+
		"\n---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, annotations: {k8s.v1.cni.cncf.io/network-status: '{}'}}}",
		"render", "-f", "-", "--pod", "shop/web")
	if goWords.MatchString(stdout + stderr) {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
}

// writeTemp writes a manifest into a file and returns its path.
func writeTemp(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
