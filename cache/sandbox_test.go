package cache

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	corev1 "k8s.io/api/core/v1"
)

// TestStaticPod: the API server has only the mirror of a static pod. Who says so of a pod of his own gets no other's sandbox.
func TestStaticPod(t *testing.T) {
	c := newCluster(t, model.NewPolicy("p", "net-a", `{podSelector: {}}`))
	mirror := func(name string) *corev1.Pod {
		p := model.SetNetworks(model.NewPod(name, ""), "net-a")
		p.Annotations[corev1.MirrorPodAnnotationKey] = "hash"
		return p
	}
	theirs, forged := mirror("new"), mirror("forged")
	upsert(c, theirs)
	upsert(c, forged)
	c.TakeDirty()
	where := func(pod string) string {
		target, _ := targetOf(c, pod)
		return target.Sandbox.ID
	}
	c.SetSandbox("hash", Sandbox{ID: "s", Pod: model.KeyOf("new"), NetNS: "/s"})
	wantDirty(t, c, "the static pod's sandbox", "forged", "new")
	if where("new") != "s" || where("forged") != "" {
		t.Errorf("the static pod is in %q, and the one that says it is the same in %q", where("new"), where("forged"))
	}
	// A pod that has a sandbox of its own is in that, whatever it says.
	c.SetSandbox(forged.UID, Sandbox{ID: "own", Pod: model.KeyOf("forged"), NetNS: "/own"})
	if where("forged") != "own" {
		t.Errorf("it is in %q", where("forged"))
	}
	c.DeleteSandbox("hash")
	if where("new") != "" {
		t.Errorf("it is still in %q", where("new"))
	}
}
