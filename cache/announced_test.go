package cache

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// starting is a pod as its runtime announces it.
func starting(uid types.UID, labels string) *corev1.Pod {
	p := model.SetNetworks(model.NewPod("new", labels), "net-a")
	p.UID, p.Status.Phase = uid, corev1.PodPending
	return p
}

const (
	newIsolated = "drop ingress net1 10.0.0.2 tcp 80"
	newOpen     = "pass ingress net1 10.0.0.2 tcp 80"
)

func announce(c *Cache, p *corev1.Pod) { c.AnnouncePod(NewPod(p, c.node, c.limits)) }

// wantNew checks which pods named "new" are local, each as "UID: a packet that passes or is dropped".
func wantNew(t *testing.T, c *Cache, want map[types.UID]string) {
	t.Helper()
	got := map[types.UID]string{}
	for id := range c.targets {
		target, _ := c.Plan(id)
		got[id.UID] = newIsolated
		if model.NewTable(t, target.Tables[engine.Inet]).Passes(model.NewPacket(newOpen[len("pass "):])) {
			got[id.UID] = newOpen
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An announced pod counts until the API server knows it, or its sandbox goes.
func TestAnnouncedPod(t *testing.T) {
	type pods = map[types.UID]string
	policy := model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}}`)
	t.Run("the API server's pod replaces it", func(t *testing.T) {
		c := newCluster(t, policy)
		announce(c, starting("u", "app=web"))
		wantDirty(t, c, "announced", "new")
		wantNew(t, c, pods{"u": newIsolated})
		upsert(c, starting("u", "app=other"))
		wantNew(t, c, pods{"u": newOpen})
		announce(c, starting("u", "app=web"))
		wantNew(t, c, pods{"u": newOpen})
		c.DeleteSandbox("u")
		wantNew(t, c, pods{"u": newOpen})
		c.DeletePod(model.KeyOf("new"))
		wantNew(t, c, pods{})
	})
	t.Run("it goes with its sandbox", func(t *testing.T) {
		c := newCluster(t, policy)
		before := c.Stats()
		announce(c, starting("u", "app=web"))
		c.SetSandbox("u", Sandbox{ID: "s", NetNS: "/s"})
		c.DeleteSandbox("another")
		wantNew(t, c, pods{"u": newIsolated})
		c.DeleteSandbox("u")
		wantNew(t, c, pods{})
		if diff := cmp.Diff(before, c.Stats()); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
	})
	t.Run("late events belong to the pod before", func(t *testing.T) {
		c := newCluster(t, policy)
		upsert(c, starting("old", "app=other"))
		announce(c, starting("u", "app=web"))
		wantNew(t, c, pods{"old": newOpen, "u": newIsolated})
		upsert(c, starting("old", "app=other"))
		wantNew(t, c, pods{"old": newOpen, "u": newIsolated})
		c.DeletePod(model.KeyOf("new"))
		wantNew(t, c, pods{"u": newIsolated})
		upsert(c, starting("u", "app=web"))
		wantNew(t, c, pods{"u": newIsolated})
		c.DeletePod(model.KeyOf("new"))
		wantNew(t, c, pods{})
	})
	t.Run("a late announcement evicts no newer pod", func(t *testing.T) {
		c := newCluster(t, policy)
		upsert(c, starting("next", "app=web"))
		announce(c, starting("u", "app=other"))
		wantNew(t, c, pods{"u": newOpen, "next": newIsolated})
		c.DeleteSandbox("u")
		wantNew(t, c, pods{"next": newIsolated})
	})
	t.Run("the API server is one pod ahead", func(t *testing.T) {
		c := newCluster(t, policy)
		announce(c, starting("u", "app=web"))
		upsert(c, starting("next", "app=other"))
		wantNew(t, c, pods{"u": newIsolated, "next": newOpen})
		c.DeleteSandbox("u")
		wantNew(t, c, pods{"next": newOpen})
	})
	t.Run("it is nobody's peer, whatever its template says", func(t *testing.T) {
		c := newCluster(t, model.WebPod(), model.NewPolicy("q", "net-a", `{ingress: [{from: [{podSelector: {}}]}]}`))
		p := model.NewPod("new", "", "net1 net-a 10.0.0.99")
		announce(c, p)
		wantPackets(t, c, "web", "drop ingress net1 10.0.0.99 tcp 80")
		upsert(c, p)
		wantPackets(t, c, "web", "pass ingress net1 10.0.0.99 tcp 80")
	})
	t.Run("it ends before it is seen", func(t *testing.T) {
		c := newCluster(t, policy)
		announce(c, starting("u", "app=web"))
		upsert(c, model.With(starting("u", "app=web"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }))
		wantNew(t, c, pods{})
	})
	t.Run("not of this node", func(t *testing.T) {
		c := newCluster(t, policy)
		announce(c, model.With(starting("u", "app=web"), func(p *corev1.Pod) { p.Spec.NodeName = "node-2" }))
		announce(c, model.With(starting("u", "app=web"), func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		wantNew(t, c, pods{})
	})
}
