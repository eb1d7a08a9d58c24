package nft

import (
	"os/exec"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// Run runs nft in the network namespace of a host, and returns its stdout and stderr. The script is the stdin of nft.
func Run(h *lab.Host, script string, args ...string) (string, error) {
	var out []byte
	err := h.Do(func() (err error) {
		c := exec.Command("nft", args...)
		c.Stdin = strings.NewReader(script)
		out, err = c.CombinedOutput()
		return err
	})
	return string(out), err
}

// MustRun is Run for a test, which fails if nft fails.
func MustRun(t lab.TB, h *lab.Host, script string, args ...string) string {
	t.Helper()
	out, err := Run(h, script, args...)
	if err != nil {
		t.Fatalf("nft %s: %v\n%s\n%s", strings.Join(args, " "), err, out, script)
	}
	return out
}

// WithoutOwner returns a listing without the owner of the table.
func WithoutOwner(listing string) string {
	var lines []string
	for _, line := range strings.Split(listing, "\n") {
		if !strings.HasPrefix(line, "\tflags ") {
			line, _, _ = strings.Cut(line, " # progname ")
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
