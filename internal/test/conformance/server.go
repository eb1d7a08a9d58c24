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
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Server stands in for the API server, in memory. It announces each change by itself, in order, and it makes no objects
// of its own, for example no namespaces. All methods may be called concurrently.
type Server struct {
	// Guards version and the fields of the kinds.
	mu sync.Mutex
	// The version of the last change. All kinds share it, as in etcd.
	version uint64
	kinds   map[string]*serverKind
}

// NewServer makes a server without objects.
func NewServer() *Server {
	s := &Server{kinds: map[string]*serverKind{}}
	for _, k := range []string{oracle.KindPod, oracle.KindNamespace, oracle.KindNAD, oracle.KindPolicy} {
		s.kinds[k] = &serverKind{server: s, objects: map[oracle.Key]oracle.Object{}}
	}
	return s
}

// Objects returns the lists and watches of the objects.
func (s *Server) Objects() informers.Objects {
	return informers.Objects{
		Pods: s.kinds[oracle.KindPod], Namespaces: s.kinds[oracle.KindNamespace], NADs: s.kinds[oracle.KindNAD], Policies: s.kinds[oracle.KindPolicy],
	}
}

// Put creates or changes an object. An object with another UID is another object of the same name: Put announces the
// deletion of the old object first.
func (s *Server) Put(o oracle.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := oracle.RefOf(o)
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

// Delete deletes an object, if it exists.
// The watches get the last version of it.
func (s *Server) Delete(ref oracle.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[ref.Kind]
	if old := k.objects[ref.Key]; old != nil {
		k.record(watch.Deleted, old)
	}
}

// Versions returns the resource version of every object. An agent that has exactly these versions has seen all changes.
func (s *Server) Versions() map[oracle.Ref]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := map[oracle.Ref]string{}
	for _, k := range s.kinds {
		for _, o := range k.objects {
			versions[oracle.RefOf(o)] = o.GetResourceVersion()
		}
	}
	return versions
}

// serverKind holds the objects of a kind and all of their changes. It implements list and watch for an informer.
// A version of an object is never changed, so the history can be sent again.
type serverKind struct {
	server  *Server
	objects map[oracle.Key]oracle.Object
	// All changes since the beginning: a watch may ask for the changes after any version.
	history []watch.Event
	watches []*watch.RaceFreeFakeWatcher
}

// record makes a change and announces it. The caller holds the server's lock. Objects are copied, so that informers and
// cases share no memory.
func (k *serverKind) record(event watch.EventType, o oracle.Object) {
	k.server.version++
	o = o.DeepCopyObject().(oracle.Object)
	o.SetResourceVersion(strconv.FormatUint(k.server.version, 10))
	key := oracle.RefOf(o).Key
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

// IsWatchListSemanticsUnSupported makes reflectors list before they watch: the watch does not send the initial objects.
func (k *serverKind) IsWatchListSemanticsUnSupported() bool { return true }

// List returns all objects, at the current version.
// The options are ignored: informers here ask for everything.
func (k *serverKind) List(metav1.ListOptions) (runtime.Object, error) {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	list := &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(k.server.version, 10)}}
	for _, o := range k.objects {
		list.Items = append(list.Items, runtime.RawExtension{Object: o.DeepCopyObject()})
	}
	return list, nil
}

// Watch sends the changes after a version, and then later changes as they come.
// The version 0 asks for all changes.
func (k *serverKind) Watch(o metav1.ListOptions) (watch.Interface, error) {
	from, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("resource version %q: %v", o.ResourceVersion, err))
	}
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	w := watch.NewRaceFreeFake()
	for _, e := range k.history {
		version, err := strconv.ParseUint(e.Object.(oracle.Object).GetResourceVersion(), 10, 64)
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
