package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// With the flag the metrics say how many packets a policy let pass and dropped: as many as were sent.
func TestPolicyCounters(t *testing.T) {
	r := newRig(t)
	r.config.Cache.PolicyCounters = true
	r.config.MetricsAddress = node.FreeAddress(t)
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.Load(node.Cluster + node.Policy)
	r.start()
	r.Becomes("enforced", true, false)
	counts := func() (allowed, dropped int) {
		_, page := node.Get(t, "http://"+r.config.MetricsAddress+"/metrics")
		for line := range strings.Lines(page) {
			for verdict, n := range map[string]*int{"allowed": &allowed, "dropped": &dropped} {
				series := metricsPrefix + `policy_packets_total{direction="ingress",namespace="ns",policy="p",verdict="` + verdict + `"}`
				if value, ok := strings.CutPrefix(line, series); ok {
					if _, err := fmt.Sscan(value, n); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		return allowed, dropped
	}
	if !r.Reaches("friend", 10*time.Second) {
		t.Fatal("the friend does not get through")
	}
	node.Eventually(t, "the first counts", func() bool { a, _ := counts(); return a >= 1 })
	time.Sleep(countsInterval + time.Second) // the rest of what was sent before
	allowed, dropped := counts()
	for range 5 {
		if !r.Reaches("friend", 10*time.Second) {
			t.Fatal("the friend does not get through")
		}
	}
	r.Reaches("stranger", 100*time.Millisecond) // one SYN: the next would come after a second, of a busy machine's too
	node.Eventually(t, "five connections more, and one packet dropped, or it and one again", func() bool {
		a, d := counts()
		if a > allowed+5 || d > dropped+2 {
			t.Fatalf("allowed %d and then %d, dropped %d and then %d", allowed, a, dropped, d)
		}
		return a == allowed+5 && d > dropped
	})
}
