package cluster

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
)

// selection is the part of a list that a client asks for.
type selection struct {
	namespace string
	labels    labels.Selector
	fields    fields.Selector
}

// namespaced returns the handler for lists of a kind in a namespace, with selectors. There are no watches.
func (a *API) namespaced(gvk schema.GroupVersionKind, lw toolscache.ListerWatcher) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := selection{namespace: r.PathValue("namespace")}
		var err error
		if s.labels, err = labels.Parse(r.URL.Query().Get("labelSelector")); err == nil {
			s.fields, err = fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
		}
		if err != nil {
			refuse(w, apierrors.NewBadRequest(err.Error()))
			return
		}
		items, version, err := listed(lw, gvk)
		if err != nil {
			refuse(w, apierrors.NewInternalError(err))
			return
		}
		selected := []runtime.Object{}
		for _, o := range items {
			if s.has(o) {
				selected = append(selected, o)
			}
		}
		respond(w, http.StatusOK, map[string]any{
			"kind": gvk.Kind + "List", "apiVersion": gvk.GroupVersion().String(),
			"metadata": map[string]string{"resourceVersion": version}, "items": selected,
		})
	}
}

// has reports whether an object is in the selection.
func (s selection) has(o runtime.Object) bool {
	m, err := meta.Accessor(o)
	if err != nil {
		return false
	}
	return m.GetNamespace() == s.namespace && s.labels.Matches(labels.Set(m.GetLabels())) && s.fields.Matches(fieldsOf(o, m))
}

// fieldsOf returns the fields by which an API server selects objects.
func fieldsOf(o runtime.Object, m metav1.Object) fields.Set {
	set := fields.Set{"metadata.name": m.GetName()}
	if pod, ok := o.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"] = pod.Spec.NodeName, string(pod.Status.Phase)
	}
	return set
}
