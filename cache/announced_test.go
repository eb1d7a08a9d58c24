package cache

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// starting is a pod as its runtime announces it.
func starting(uid types.UID, labels string) *corev1.Pod {
	p := setNetworks(newPod("new", labels), "net-a")
	p.UID, p.Status.Phase = uid, corev1.PodPending
	return p
}

const (
	newIsolated = "drop ingress net1 10.0.0.2 tcp 80"
	newOpen     = "pass ingress net1 10.0.0.2 tcp 80"
)

func wantPod(t *testing.T, c *Cache, uid types.UID, packets ...string) {
	t.Helper()
	if target, _ := c.Target(keyOf("new")); target.UID != uid {
		t.Errorf("the pod is %q, want %q", target.UID, uid)
	}
	wantPackets(t, c, "new", packets...)
}

// What is announced counts until the API server tells of it, or its sandbox goes.
func TestAnnouncedPod(t *testing.T) {
	policy := newPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}}`)
	t.Run("the pod itself replaces it", func(t *testing.T) {
		c := newCluster(t, policy)
		c.AnnouncePod(starting("u", "app=web"))
		wantDirty(t, c, "announced", "new")
		wantPod(t, c, "u", newIsolated)
		c.UpsertPod(starting("u", "app=other"))
		wantPod(t, c, "u", newOpen)
		c.AnnouncePod(starting("u", "app=web"))
		wantPod(t, c, "u", newOpen)
		c.DeleteSandbox("u")
		wantPod(t, c, "u", newOpen)
		c.DeletePod(keyOf("new"))
		wantPod(t, c, "")
	})
	t.Run("it goes with its sandbox", func(t *testing.T) {
		c := newCluster(t, policy)
		before := c.Stats()
		c.AnnouncePod(starting("u", "app=web"))
		c.SetSandbox("u", Sandbox{ID: "s", NetNS: "/s"})
		c.DeleteSandbox("another")
		wantPod(t, c, "u", newIsolated)
		c.DeleteSandbox("u")
		wantPod(t, c, "")
		if diff := cmp.Diff(before, c.Stats()); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
	})
	t.Run("late events are of the pod before", func(t *testing.T) {
		c := newCluster(t, policy)
		c.UpsertPod(starting("old", "app=other"))
		c.AnnouncePod(starting("u", "app=web"))
		wantPod(t, c, "u", newIsolated)
		c.UpsertPod(starting("old", "app=other"))
		wantPod(t, c, "u", newIsolated)
		c.DeletePod(keyOf("new"))
		wantPod(t, c, "u", newIsolated)
		c.UpsertPod(starting("u", "app=web"))
		wantPod(t, c, "u", newIsolated)
		c.DeletePod(keyOf("new"))
		wantPod(t, c, "")
	})
	t.Run("the API server is one pod ahead", func(t *testing.T) {
		c := newCluster(t, policy)
		c.AnnouncePod(starting("u", "app=web"))
		c.UpsertPod(starting("next", "app=other"))
		wantPod(t, c, "next", newOpen)
		c.DeleteSandbox("u")
		wantPod(t, c, "next", newOpen)
	})
	t.Run("it ends before it is seen", func(t *testing.T) {
		c := newCluster(t, policy)
		c.AnnouncePod(starting("u", "app=web"))
		c.UpsertPod(with(starting("u", "app=web"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }))
		wantPod(t, c, "")
	})
	t.Run("not of here", func(t *testing.T) {
		c := newCluster(t, policy)
		c.AnnouncePod(with(starting("u", "app=web"), func(p *corev1.Pod) { p.Spec.NodeName = "node-2" }))
		c.AnnouncePod(with(starting("u", "app=web"), func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		wantPod(t, c, "")
	})
}
