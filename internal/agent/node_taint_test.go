package agent

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// fakeNodes reads and patches the nodes of a fake API server.
type fakeNodes struct{ *fake.Clientset }

func (f fakeNodes) Node(ctx context.Context, name string) (*corev1.Node, error) {
	return f.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
}

func (f fakeNodes) PatchNode(ctx context.Context, name string, patch []byte) error {
	_, err := f.CoreV1().Nodes().Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
	return err
}

func TestRemoveTaint(t *testing.T) {
	other := corev1.Taint{Key: "other", Effect: corev1.TaintEffectNoSchedule}
	ours := func(e corev1.TaintEffect) corev1.Taint { return corev1.Taint{Key: NotReadyTaint, Effect: e} }
	client := fake.NewClientset(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "here"},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{
			ours(corev1.TaintEffectNoSchedule), other, ours(corev1.TaintEffectNoExecute),
		}},
	})
	p := newProgress(newMetrics(""))
	h := &health{progress: p}
	h.follow(func() []string { return nil }, func() time.Duration { return 0 })
	removeTaint(t.Context(), fakeNodes{client}, "here", h)
	node, err := client.CoreV1().Nodes().Get(t.Context(), "here", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(node.Spec.Taints) != 1 || node.Spec.Taints[0] != other {
		t.Errorf("left: %v", node.Spec.Taints)
	}
	before := len(client.Actions())
	removeTaint(t.Context(), fakeNodes{client}, "here", h)
	for _, a := range client.Actions()[before:] {
		if a.GetVerb() == "patch" {
			t.Error("a node without the taint is patched")
		}
	}
}
