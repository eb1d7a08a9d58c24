package cache

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
)

// What valid policies do not do is told as long as it is so.
func TestShortfalls(t *testing.T) {
	c := newCluster(t, model.WebPod(), model.NewNAD("net-b", "calico"),
		model.NewPolicy("open", "net-a, net-b", `{ingress: [{ports: [{port: http}, {port: nobody}, {port: init}]}]}`),
		model.NewPolicy("out", "net-a", `{egress: [{to: [{podSelector: {}}], ports: [{port: http}, {port: sql}, {protocol: UDP, port: http}]}]}`),
		model.NewPolicy("other", "net-a", `{podSelector: {matchLabels: {app: other}}, ingress: [{ports: [{port: nobody}]}]}`))
	want := map[string]string{
		`default/open UnresolvedNamedPort spec.ingress[0].ports: no pod on this node that the policy isolates has a port "init" of tcp, so the name allows nothing`:                                                             "",
		`default/open UnresolvedNamedPort spec.ingress[0].ports: no pod on this node that the policy isolates has a port "nobody" of tcp, so the name allows nothing`:                                                           "",
		`default/open UnsupportedNetworkPlugin metadata.annotations[k8s.v1.cni.cncf.io/policy-for]: network default/net-b has the plugin type "calico", which is none of --network-plugins, so its interfaces are not isolated`: "",
		`default/out UnresolvedNamedPort spec.egress[0].ports: no peer of the rule has a port "sql" of tcp, so the name allows nothing`:                                                                                         "",
		`default/out UnresolvedNamedPort spec.egress[0].ports: no peer of the rule has a port "http" of udp, so the name allows nothing`:                                                                                        "",
	}
	targetOf(c, "web")
	if diff := cmp.Diff(want, shortfallTexts(c)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := c.Stats().Unsupported; n != 1 {
		t.Errorf("%d pods on networks that are not isolated", n)
	}
	upsert(c, model.WithPorts(model.NewPeer("db", "", "net1 net-a 10.0.0.9"), "sql=5432/TCP", "http=80/UDP"))
	upsert(c, model.NewNAD("net-b", "bridge"))
	c.DeletePolicy(model.KeyOf("open"))
	settle(c)
	if got := shortfallTexts(c); len(got) > 0 || c.Stats().Unsupported > 0 {
		t.Errorf("still %v", got)
	}
}

func shortfallTexts(c *Cache) map[string]string {
	texts := map[string]string{}
	for _, s := range c.Shortfalls() {
		for _, p := range s.Problems {
			texts[s.Policy.String()+" "+string(s.Reason)+" "+p.String()] = ""
		}
	}
	return texts
}

// A policy for a network that nobody defines and no pod is on has no effect, most often because of a wrong name.
func TestUndefinedNetwork(t *testing.T) {
	c := newCluster(t, model.NewNAD("net-a", "macvlan"), model.NewPeer("db", "", "net1 net-b 10.0.0.9"),
		model.NewPolicy("p", "net-a, net-b, net-c", `{ingress: []}`))
	want := map[string]string{
		"default/p UndefinedNetwork metadata.annotations[k8s.v1.cni.cncf.io/policy-for]: no NetworkAttachmentDefinition default/net-c exists and no " +
			"pod is attached to such a network, so the policy has no effect there": "",
	}
	if diff := cmp.Diff(want, shortfallTexts(c)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	upsert(c, model.NewNAD("net-c", "macvlan"))
	if got := shortfallTexts(c); len(got) > 0 {
		t.Errorf("still %v", got)
	}
}
