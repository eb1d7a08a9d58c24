package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// alike are two more policies for the server. They have the same list of ports, so the rules that lead to them share a chain.
const alike = `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: q, uid: q,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {}, ingress: [{ports: [{port: 9}]}]}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: r, uid: r,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {}, ingress: [{ports: [{port: 9}]}]}}
`

// With the flag the metrics say how many packets a policy let pass and dropped: as many as were sent. A packet that no policy
// allows counts for each of them.
func TestPolicyCounters(t *testing.T) {
	r := newRig(t)
	r.config.Cache.PolicyCounters = true
	r.config.MetricsAddress = cluster.LoopbackAddress()
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.Load(node.Cluster + node.Policy + alike)
	r.start()
	r.Becomes("enforced", true, false)
	countsOf := func(policy string) (allowed, dropped int) {
		_, page := node.Get(t, "http://"+r.config.MetricsAddress+"/metrics")
		for line := range strings.Lines(page) {
			for verdict, n := range map[string]*int{"allowed": &allowed, "dropped": &dropped} {
				series := metricsPrefix + `policy_packets_total{direction="ingress",namespace="ns",policy="` + policy + `",verdict="` + verdict + `"}`
				if value, ok := strings.CutPrefix(line, series); ok {
					if _, err := fmt.Sscan(value, n); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		return allowed, dropped
	}
	counts := func() (allowed, dropped int) { return countsOf("p") }
	if !r.Reaches("friend", 10*time.Second) {
		t.Fatal("the friend does not get through")
	}
	await.That(t, "the first counts", func() bool { a, _ := counts(); return a >= 1 })
	time.Sleep(2 * countsInterval) // the packets from before are read
	allowed, dropped := counts()
	for range 5 {
		if !r.Reaches("friend", 10*time.Second) {
			t.Fatal("the friend does not get through")
		}
	}
	r.Reaches("stranger", 100*time.Millisecond) // one SYN: the next would come after a second, of a busy machine's too
	await.That(t, "five connections more, and one packet dropped, or it and one again", func() bool {
		a, d := counts()
		if a > allowed+5 || d > dropped+2 {
			t.Fatalf("allowed %d and then %d, dropped %d and then %d", allowed, a, dropped, d)
		}
		return a == allowed+5 && d > dropped
	})
	for _, policy := range []string{"q", "r"} {
		_, want := counts()
		if a, d := countsOf(policy); a != 0 || d != want {
			t.Errorf("policy %s: allowed %d, dropped %d, want 0 and %d", policy, a, d, want)
		}
	}
}
