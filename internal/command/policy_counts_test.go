package command

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/testcluster"
)

// With the flag the metrics say how many packets a policy let pass and dropped: as many as were sent.
func TestPolicyCounters(t *testing.T) {
	r := newRig(t)
	r.agent.table.policyCounters = true
	r.agent.endpoints = endpointOptions{metrics: freeAddress(t)}
	r.runtime.Set(testcluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: testcluster.InfoOf(r.hosts["server"].NetNS()),
	})
	if err := r.runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.load(agentCluster + agentPolicy)
	r.start()
	r.becomes("enforced", true, false)
	counts := func() (allowed, dropped int) {
		_, page := get(t, "http://"+r.agent.endpoints.metrics+"/metrics")
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
	if !r.reaches("friend", 10*time.Second) {
		t.Fatal("the friend does not get through")
	}
	eventually(t, "the first counts", func() bool { a, _ := counts(); return a >= 1 })
	time.Sleep(countsInterval + 2*auditInterval) // the rest of what was sent before
	allowed, dropped := counts()
	for range 5 {
		if !r.reaches("friend", 10*time.Second) {
			t.Fatal("the friend does not get through")
		}
	}
	r.reaches("stranger", 100*time.Millisecond) // one SYN: the next would come after a second, of a busy machine's too
	eventually(t, "five connections more, and one packet dropped, or it and one again", func() bool {
		a, d := counts()
		if a > allowed+5 || d > dropped+2 {
			t.Fatalf("allowed %d and then %d, dropped %d and then %d", allowed, a, dropped, d)
		}
		return a == allowed+5 && d > dropped
	})
}
