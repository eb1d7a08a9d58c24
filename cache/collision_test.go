package cache

import (
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// Names of sets and chains hold 64 bits of a hash. Two values with the same name must never share a set or a chain: the
// later one allows nothing, and says why.
func TestCollisions(t *testing.T) {
	const first = `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 80}]}]}`
	const second = `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: y}}}], ports: [{port: 81}]}]}`
	for name, collide := range map[string]func(p, q *policy.Section){
		"groups": func(p, q *policy.Section) {
			g := *q.Rules[0].Peers
			g.Digest = p.Rules[0].Peers.Digest
			g.Digest[31]++
			q.Rules[0].Peers = &g
		},
		"chains": func(p, q *policy.Section) { q.ChainName = p.ChainName },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, model.NewNAD("net", "macvlan"), model.NewPod("web", "app=web", "net1 net 10.0.0.1"),
				model.NewPod("other", "app=web", "net1 net 10.0.0.2"), model.NewPeer("x", "app=x", "net1 net 10.0.0.3"),
				model.NewPeer("y", "app=y", "net1 net 10.0.0.4"))
			p, q := compile(model.NewPolicy("p", "net", first)), compile(model.NewPolicy("q", "net", second))
			collide(p.Sections[engine.Ingress], q.Sections[engine.Ingress])
			c.UpsertPolicy(p)
			c.UpsertPolicy(q)
			for _, pod := range []string{"web", "other"} {
				text := renderPod(t, c, pod)
				if !strings.Contains(text, "10.0.0.3") || strings.Contains(text, "10.0.0.4") || strings.Contains(text, ". 81") {
					t.Errorf("%s has\n%s", pod, text)
				}
			}
			var told []string
			for _, s := range c.Shortfalls() {
				for _, problem := range s.Problems {
					told = append(told, s.Policy.Name+" "+string(s.Reason)+" "+problem.String())
				}
			}
			if len(told) != 2 || !strings.HasPrefix(told[0], "q PodLimitExceeded pod default/other: a hash of the policy is also the hash of another") {
				t.Errorf("%q", told)
			}
			c.DeletePolicy(q.Key)
			for _, pod := range []string{"web", "other"} {
				if text := renderPod(t, c, pod); !strings.Contains(text, "10.0.0.3") {
					t.Errorf("after the second policy is gone, %s has\n%s", pod, text)
				}
			}
		})
	}
}
