package engine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// TestTry: what the kernel refuses is known before any pod is touched.
func TestTry(t *testing.T) {
	if err := Try(Inet, isolated(parseAddrs("10.0.0.1"), 80)); err != nil {
		t.Error(err)
	}
	if err := Try(Inet, Ruleset{}); err != nil {
		t.Error(err)
	}
	bad := NewRuleset(nil, []*Chain{{Name: "c", Rules: []Rule{{Statements: []expr.Statement{expr.Jump("missing")}}}}})
	var refused *nfnl.MessageError
	if err := Try(Inet, bad); !errors.Is(err, unix.ENOENT) || !errors.As(err, &refused) {
		t.Errorf("error: %v", err)
	}
}

// TestProbeWhileLoading: the kernel answers EINVAL while it loads nf_tables. The Engine asks again, and gives up after a while.
func TestProbeWhileLoading(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		loading time.Duration // afterwards the kernel answers
		want    error
	}{
		{"loaded soon", 10 * loadingPause, nil},
		{"never loaded", 4 * loadingPatience, unix.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			questions := 0
			start := time.Now()
			err := inOwnNamespace(func(e *Engine) error {
				x, done := e.exchange()
				defer done()
				return whileLoading(unix.EINVAL, func() error {
					questions++
					if time.Since(start) < tt.loading {
						defer answering(t, e, errorAnswer(1, unix.EINVAL))()
					}
					_, err := x.generation(e.transport)
					return err
				})
			})
			took := time.Since(start)
			if !errors.Is(err, tt.want) || questions < 2 || took > 2*loadingPatience {
				t.Errorf("error %v after %d questions in %s", err, questions, took)
			}
		})
	}
}

// TestProbeUnloaded: many processes that start at once, on a node without a single module of nf_tables, all get the right answer.
func TestProbeUnloaded(t *testing.T) {
	if os.Getenv("DISPOSABLE_MACHINE") == "" {
		t.Skip("SKIPPED: this test unloads kernel modules, so it runs in a virtual machine only: go run ./hack/kernels -run TestProbeUnloaded ./engine")
	}
	stateful := isolated(parseAddrs("10.0.0.1"), 80)
	for range 5 {
		unloadTables(t)
		features, err := Probe()
		if err != nil {
			t.Fatal(err)
		}
		tracksBridges := Try(Bridge, stateful) == nil
		unloadTables(t)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				again, err := Probe()
				if err != nil || again != features {
					t.Errorf("%+v, %v; alone %+v", again, err, features)
				}
				if err := Try(Inet, stateful); err != nil {
					t.Error(err)
				}
				if err := Try(Bridge, stateful); (err == nil) != tracksBridges {
					t.Errorf("bridge: %v; alone: %t", err, tracksBridges)
				}
			})
		}
		all.Wait()
	}
}

// unloadTables removes all modules of netfilter from the kernel. The kernel may still be freeing namespaces that use them.
func unloadTables(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		list, err := os.ReadFile("/proc/modules")
		if err != nil {
			t.Fatal(err)
		}
		left := ""
		for line := range strings.Lines(string(list)) {
			var name string
			if _, err := fmt.Sscan(line, &name); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "nf") && unix.DeleteModule(name, 0) != nil {
				left += line
			}
		}
		switch {
		case left == "":
			return
		case time.Now().After(deadline):
			t.Fatalf("still loaded:\n%s", left)
		}
	}
}
