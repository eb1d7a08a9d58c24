package cache

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

func TestStats(t *testing.T) {
	c := New(testOptions())
	if got := c.Stats(); got != (Stats{}) {
		t.Errorf("an empty cache: %+v", got)
	}
	unreadable := model.NewPod("ns/unreadable", "")
	unreadable.Annotations = map[string]string{StatusAnnotation: "["}
	upsert(c, unreadable)
	upsert(c, model.NewPod("ns/web", "app=web", "net1 ns/net 10.0.0.1"))
	upsert(c, model.NewPeer("ns/one", "app=peer", "net1 ns/net 10.0.0.2"))
	upsert(c, model.NewPeer("ns/two", "app=peer", "net1 ns/net 10.0.0.9"))
	upsert(c, model.NewPolicy("ns/active", "net", `{podSelector: {matchLabels: {app: web}},
		ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}]}]}`))
	upsert(c, model.NewPolicy("ns/invalid", "net", `{podSelector: {matchLabels: {app: nobody}},
		ingress: [{from: [{ipBlock: {cidr: bad}}]}]}`))
	audited := model.NewPolicy("ns/audited", "net", `{podSelector: {matchLabels: {app: nobody}}}`)
	audited.Annotations[policy.ModeAnnotation] = string(policy.Audit)
	upsert(c, audited)
	targetOf(c, "ns/web")
	want := Stats{
		Pods: 4, LocalPods: 2, Namespaces: 1, Networks: 1, Policies: 3, ActivePolicies: 1, InvalidPolicies: 1, AuditedPolicies: 1,
		Groups: 1, Members: 2, SelectedPods: 1, WithoutSandbox: 1, UnreadableStatus: 1,
	}
	if diff := cmp.Diff(want, c.Stats()); diff != "" {
		t.Error(diff)
	}
	target, _ := targetOf(c, "ns/web")
	c.SetSandbox(target.Pod.UID, Sandbox{ID: "s", NetNS: "/s"})
	if got := c.Stats(); got.WithoutSandbox != 0 || got.Sandboxes != 1 {
		t.Errorf("with a sandbox: %+v", got)
	}
	c.DeletePolicy(model.KeyOf("ns/active"))
	upsert(c, model.NewPod("ns/later", "app=web", "net1 ns/net 10.0.0.3"))
	if got := c.Stats(); got.ActivePolicies != 0 || got.SelectedPods != 0 {
		t.Errorf("with a pod that only a deleted policy selects: %+v", got)
	}
}
