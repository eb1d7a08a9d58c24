package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// TestRefused: a batch that the kernel refuses leaves the last good rules in force. It is tried again with growing
// pauses, other pods go on meanwhile, and a log line and a metric say which message was refused and why.
func TestRefused(t *testing.T) { onBothPaths(t, testRefused) }

func testRefused(t *testing.T, own bool) {
	w := newSettledWorld(t, own)
	server, _ := w.table("server")
	allowed, _ := w.table("allowed")
	for _, fault := range []struct{ kind, errno, says string }{
		{refused, "ENOENT", `NEWRULE zzz: no such file or directory (attribute at byte `},
		{exists, "EEXIST", `NEWCHAIN zzz: file exists (attribute at byte `},
	} {
		w.log.Take(0)
		w.tables.always("default/server", fault.kind)
		start := time.Now()
		addr := netip.AddrFrom4([4]byte{10, 8, 1, byte(len(w.pods))}) // another address each time
		for _, app := range []string{"allowed", "server"} {
			name := app + "-" + fault.errno
			w.pods[name] = leakPod(name, "other", addr, map[string]string{"app": app})
			w.putPod(w.pods[name])
		}
		w.agent.Notify()
		await.That(t, "the other pod's change is in force", func() bool { is, _ := w.table("allowed"); return is != allowed })
		allowed, _ = w.table("allowed")
		failures := w.metrics.refused.WithLabelValues(fault.errno)
		await.That(t, "four tries", func() bool { return testutil.ToFloat64(failures) >= 4 })
		if took := time.Since(start); took < 7*50*time.Millisecond {
			t.Errorf("%s: four tries in %s", fault.kind, took)
		}
		if is, _ := w.table("server"); is != server {
			t.Errorf("%s: the last good rules were\n%sand are\n%s", fault.kind, server, is)
		}
		if w.agent.Settled() {
			t.Errorf("%s: settled", fault.kind)
		}
		checkRefusals(t, w.log.Take(1000), fault.says, `"errno"="`+fault.errno+`"`)
		w.tables.always("", "")
		w.settle()
		if is, _ := w.table("server"); is == server {
			t.Errorf("%s: the change never came", fault.kind)
		}
		server, _ = w.table("server")
	}
}

// checkRefusals: each try that failed has a line, with the pod, the try, the errno and the message.
func checkRefusals(t *testing.T, log string, says ...string) {
	t.Helper()
	tries := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, "default/allowed") {
			continue
		}
		tries++
		for _, want := range append(says, `"pod"="default/server"`, "Applying policies failed") {
			if !strings.Contains(line, want) {
				t.Errorf("no %s in the line\n%s", want, line)
			}
		}
	}
	if tries < 4 {
		t.Errorf("%d lines in the log for four tries", tries)
	}
}
