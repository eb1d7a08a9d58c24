package informers

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Files serves the objects of manifests to informers in place of the API server. Load replaces all objects, and the informers
// receive the differences as events. It is safe for concurrent use.
//
// Like the API server, it puts an object without a namespace into the namespace default, and gives a UID to an object without a
// UID. It also creates the namespaces that objects are in, with the label kubernetes.io/metadata.name.
type Files struct {
	// Each kind has a store of its own, as each kind has its own list and watch.
	pods, namespaces, nads, policies *store
}

// NewFiles returns Files without objects.
func NewFiles() *Files {
	return &Files{pods: newStore(), namespaces: newStore(), nads: newStore(), policies: newStore()}
}

// Load replaces all objects by the objects of the manifests. If it returns an error, it has changed nothing. It does not keep the
// manifests.
func (f *Files) Load(m Manifests) error {
	// All objects are checked before the stores change, so that an error changes nothing.
	next := map[*store]map[types.NamespacedName]object{f.pods: {}, f.namespaces: {}, f.nads: {}, f.policies: {}}
	places := map[*store]map[types.NamespacedName]string{f.pods: {}, f.namespaces: {}, f.nads: {}, f.policies: {}} // for errors
	for _, m := range m {
		s := f.storeOf(m.object)
		key := keyOf(m.object)
		if place, ok := places[s][key]; ok {
			return fmt.Errorf("%s: %s is there already (%s)", m.place, key, place)
		}
		// The copy keeps later changes of the caller's manifests out of the store, which takes ownership of its
		// objects.
		places[s][key], next[s][key] = m.place, m.object.DeepCopyObject().(object)
	}
	// The namespaces come after the objects, since a manifest may define a namespace itself, with labels.
	for _, m := range m {
		key := types.NamespacedName{Name: m.object.GetNamespace()}
		if _, ok := next[f.namespaces][key]; !ok && key.Name != "" {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: key.Name}}
			reader{}.setDefaults(ns)
			next[f.namespaces][key] = ns
		}
	}
	for s, objects := range next {
		s.replace(objects)
	}
	return nil
}

// Objects returns the lists and watches of the objects.
func (f *Files) Objects() Objects {
	return Objects{Pods: f.pods, Namespaces: f.namespaces, NADs: f.nads, Policies: f.policies}
}

// Source returns a source of the objects for informers.
func (f *Files) Source(s Settings) Source { return FromObjects(f.Objects(), s) }

// storeOf returns the store for an object that newObject made.
func (f *Files) storeOf(o object) *store {
	switch o := o.(type) {
	case *corev1.Pod:
		return f.pods
	case *corev1.Namespace:
		return f.namespaces
	case *unstructured.Unstructured:
		if o.GetKind() == KindNAD {
			return f.nads
		}
		return f.policies
	}
	panic(fmt.Sprintf("no store for %T", o)) // newObject returns no other types
}

// keyOf returns the key of an object; the namespace is empty for a Namespace.
func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Pods returns copies of the pods, sorted by namespace and name.
func (f *Files) Pods() []*corev1.Pod {
	objects, _ := f.pods.all()
	pods := make([]*corev1.Pod, 0, len(objects))
	for _, o := range objects {
		pods = append(pods, o.(*corev1.Pod))
	}
	return pods
}

// PolicyCount returns the number of policies.
func (f *Files) PolicyCount() int {
	objects, _ := f.policies.all()
	return len(objects)
}
