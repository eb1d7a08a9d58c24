package informers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// What was deleted while the watch was lost comes with the last state known, or with nothing but its key.
func TestDeletions(t *testing.T) {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = "ns", "a"
	for name, obj := range map[string]any{
		"the object":             pod,
		"the last state known":   toolscache.DeletedFinalStateUnknown{Key: "ns/a", Obj: pod},
		"nothing but the key":    toolscache.DeletedFinalStateUnknown{Key: "ns/a"},
		"a last state untyped":   toolscache.DeletedFinalStateUnknown{Key: "ns/a", Obj: (*corev1.Pod)(nil)},
		"key of something alien": toolscache.DeletedFinalStateUnknown{Key: "ns/a", Obj: 7},
	} {
		t.Run(name, func(t *testing.T) {
			var removed []cache.Key
			notified := 0
			in := &Informers{config: Config{Notify: func() { notified++ }, Reporter: NewReporter(nil)}}
			h := handler(t.Context(), in, kind[*corev1.Pod]{
				name: kindPod, remove: func(key cache.Key) { removed = append(removed, key) },
			})
			h.OnDelete(obj)
			want := types.NamespacedName{Namespace: "ns", Name: "a"}
			if len(removed) != 1 || removed[0] != want || notified != 1 {
				t.Errorf("removed %v, notified %d times", removed, notified)
			}
		})
	}
}
