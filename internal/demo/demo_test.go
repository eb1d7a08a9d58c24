package demo

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	start := time.Now()
	if err := Run(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	text := out.String()
	for _, want := range []string{
		"  outsider       ✔       ✘      ✘          ✔          ·         ✘\n",
		"  partner        ✔       ✔      ✘          ✔          ✘         ·\n", // UDP from the block without the except
		"4 policies loaded. 5 of 6 pods are selected",
		"table inet multi_networkpolicy {\n",
		`comment "shop/web-policy ingress[0]"`,
		"Every probe came out as expected.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not in the output: %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	t.Logf("took %s", time.Since(start))
}

// An unexpected verdict is shown and makes the demo fail.
func TestDemoSurprise(t *testing.T) {
	var out bytes.Buffer
	d := &demo{out: &out}
	if err := d.load(); err != nil {
		t.Fatal(err)
	}
	f := flow{"partner", "web", service{lab.UDP, 5353}}
	d.expected.allowed[f] = false
	err := d.run(t.Context())
	if err == nil || err.Error() != "2 probes did not come out as expected" {
		t.Errorf("got %v", err)
	}
	for _, addr := range []string{"10.10.0.12", "fd00:10::12"} {
		if want := "not as expected: udp/5353 from partner to web at " + addr + ": allowed, not dropped\n"; !strings.Contains(out.String(), want) {
			t.Errorf("not in the output: %q\n%s", want, out.String())
		}
	}
}

// Ctrl-C ends the demo at once and leaves nothing.
func TestDemoInterrupted(t *testing.T) {
	fds := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := fds()
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := Run(ctx, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if after := fds(); after > before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

func TestExpectationErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"no service":    {"icmp/8 a b\n", "line 1"},
		"no port":       {"tcp/http a b\n", "line 1"},
		"cells missing": {"tcp/80 a b\na .\n", "line 2: 1 cells for 2 receivers"},
		"unknown mark":  {"\ntcp/80 a b\na . ?\n", `line 3: "?" from a to b`},
		"to oneself":    {"tcp/80 a b\na + +\n", `line 2: "+" from a to a`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseExpectation(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	e, err := parseExpectation("tcp/80 a b # comment\na . +\n")
	if err != nil {
		t.Fatal(err)
	}
	pods := []*pod{{}, {}}
	pods[0].id.Name, pods[1].id.Name = "a", "b"
	if err := e.covers(pods); err == nil || !strings.Contains(err.Error(), "nothing is expected of tcp/80 from b to a") {
		t.Errorf("got %v", err)
	}
}
