package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// An error gives a single line and a non-zero exit code.
func TestMistakes(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, tc := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{}, "not in a cluster", 1},
		{[]string{"--no-such-flag"}, "unknown flag", 2},
		{[]string{"--established", "maybe"}, "neither keep nor revoke", 2},
		{[]string{"exlain"}, "did you mean explain?", 2},
		{[]string{"--unenforceable-runtimes", "[kata"}, "[kata", 2},
		{[]string{"--enforced-by", "ovn-k8s-cni-overlay"}, "is not TYPE=NAME", 2},
		{[]string{"no-such-command"}, "unknown command", 2},
		{[]string{"--kubeconfig", "/nonexistent"}, "/nonexistent", 1},
		{[]string{"version", "--logging-format", "xml"}, "xml", 2},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := Main("v1", tc.args, &stdout, &stderr); code != tc.code {
				t.Errorf("exit code %d", code)
			}
			line := stderr.String()
			if stdout.Len() > 0 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, program+": ") || !strings.Contains(line, tc.want) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), line)
			}
		})
	}
	var stdout, stderr bytes.Buffer
	if code := Main("v1.2.3", []string{"version"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "v1.2.3") {
		t.Errorf("version: %d, %q, %q", code, stdout.String(), stderr.String())
	}
	stdout.Reset()
	var answer versionAnswer
	if code := Main("v1.2.3", []string{"version", "-o", "json"}, &stdout, &stderr); code != 0 ||
		json.Unmarshal(stdout.Bytes(), &answer) != nil || answer.Version != "v1.2.3" || answer.Go == "" {
		t.Errorf("version: %d, %q, %q", code, stdout.String(), stderr.String())
	}
	if err := error(exitCode(3)); !errors.As(err, new(exitCode)) {
		t.Error(err)
	}
}

// An invalid address ends the agent with a single line.
func TestBadAddress(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	kubeconfig := node.New(t).Kubeconfig
	for _, tc := range []struct {
		flag, address string
		code          int
	}{
		{"metrics-bind-address", "nonsense", 2}, {"health-bind-address", "1.2.3.4:x:y", 2},
		{"health-bind-address", busy.Addr().String(), 1},
	} {
		var stdout, stderr bytes.Buffer
		args := []string{"--kubeconfig", kubeconfig, "--metrics-bind-address=", "--health-bind-address=", fmt.Sprintf("--%s=%s", tc.flag, tc.address)}
		code := Main("v1", args, &stdout, &stderr)
		line := stderr.String()
		if code != tc.code || strings.Count(line, "\n") != 1 || !strings.Contains(line, "--"+tc.flag) || stdout.Len() > 0 {
			t.Errorf("%s: code %d, %q", tc.address, code, line)
		}
	}
}
