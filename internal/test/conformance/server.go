package conformance

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// Server stands in for the API server. Unlike a server that reads files, it takes each change by itself, and keeps no
// namespaces but those that it is given.
type Server struct {
	mu      sync.Mutex
	version uint64
	kinds   map[string]*serverKind
}

// NewServer makes a server without objects.
func NewServer() *Server {
	s := &Server{kinds: map[string]*serverKind{}}
	for _, k := range []string{kindPod, kindNamespace, kindNAD, kindPolicy} {
		s.kinds[k] = &serverKind{server: s, objects: map[Key]Object{}}
	}
	return s
}

// Objects returns the lists and watches of the objects.
func (s *Server) Objects() informers.Objects {
	return informers.Objects{
		Pods: s.kinds[kindPod], Namespaces: s.kinds[kindNamespace], NADs: s.kinds[kindNAD], Policies: s.kinds[kindPolicy],
	}
}

// Put creates or changes an object, as its UID says: another UID is another object of the same name.
func (s *Server) Put(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := refOf(o)
	k := s.kinds[ref.Kind]
	event := watch.Added
	if old := k.objects[ref.Key]; old != nil {
		if old.GetUID() != o.GetUID() {
			k.record(watch.Deleted, old)
		} else {
			event = watch.Modified
		}
	}
	k.record(event, o)
}

// Delete removes an object, if it is there.
func (s *Server) Delete(ref Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[ref.Kind]
	if old := k.objects[ref.Key]; old != nil {
		k.record(watch.Deleted, old)
	}
}

// Versions returns the version of every object.
func (s *Server) Versions() map[Ref]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := map[Ref]string{}
	for _, k := range s.kinds {
		for _, o := range k.objects {
			versions[refOf(o)] = o.GetResourceVersion()
		}
	}
	return versions
}

// serverKind is the objects of a kind, and all that happened to them. It lists and watches.
type serverKind struct {
	server  *Server
	objects map[Key]Object
	history []watch.Event
	watches []*watch.RaceFreeFakeWatcher
}

func (k *serverKind) record(event watch.EventType, o Object) {
	k.server.version++
	o = o.DeepCopyObject().(Object)
	o.SetResourceVersion(strconv.FormatUint(k.server.version, 10))
	key := refOf(o).Key
	if event == watch.Deleted {
		delete(k.objects, key)
	} else {
		k.objects[key] = o
	}
	e := watch.Event{Type: event, Object: o}
	k.history = append(k.history, e)
	k.watches = slices.DeleteFunc(k.watches, func(w *watch.RaceFreeFakeWatcher) bool { return w.IsStopped() })
	for _, w := range k.watches {
		w.Action(e.Type, o.DeepCopyObject())
	}
}

// IsWatchListSemanticsUnSupported tells reflectors to list before they watch.
func (k *serverKind) IsWatchListSemanticsUnSupported() bool { return true }

// List returns all objects.
func (k *serverKind) List(metav1.ListOptions) (runtime.Object, error) {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	list := &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(k.server.version, 10)}}
	for _, o := range k.objects {
		list.Items = append(list.Items, runtime.RawExtension{Object: o.DeepCopyObject()})
	}
	return list, nil
}

// Watch sends what happened after a version, and what will.
func (k *serverKind) Watch(o metav1.ListOptions) (watch.Interface, error) {
	from, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("resource version %q: %v", o.ResourceVersion, err))
	}
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	w := watch.NewRaceFreeFake()
	for _, e := range k.history {
		version, err := strconv.ParseUint(e.Object.(Object).GetResourceVersion(), 10, 64)
		if err != nil {
			return nil, err
		}
		if version > from {
			w.Action(e.Type, e.Object.DeepCopyObject())
		}
	}
	k.watches = append(k.watches, w)
	return w, nil
}
