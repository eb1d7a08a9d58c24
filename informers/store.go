package informers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"sync"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// historyLimit is the number of changes in the history of a store.
const historyLimit = 4096

// store holds the objects of a kind, and serves them by list and watch. Each change raises its version.
type store struct {
	// limit is the length of the history, for watches that start at an older version. A watch that needs an older change
	// must list again, as with the API server.
	limit int

	mu      sync.Mutex
	version uint64
	objects map[types.NamespacedName]object
	history []change      // the last changes, oldest first
	dropped uint64        // version of the last change that was dropped from the history
	changed chan struct{} // closed and replaced at every change
}

// change is an event of the store. The object belongs to the store; watches send copies.
type change struct {
	version uint64
	event   watch.EventType
	object  object
}

// newStore returns an empty store. Its version starts at 1, because a watch from version 0 means "any version" in the
// API.
func newStore() *store {
	return &store{limit: historyLimit, version: 1, dropped: 1, objects: map[types.NamespacedName]object{}, changed: make(chan struct{})}
}

// replace replaces all objects. Equal objects keep their version. It takes ownership of the objects.
func (s *store) replace(next map[types.NamespacedName]object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.version
	for key, old := range s.objects {
		// A different UID means a new object with the same name.
		if o, ok := next[key]; !ok || o.GetUID() != old.GetUID() {
			delete(s.objects, key)
			s.record(watch.Deleted, old.DeepCopyObject().(object))
		}
	}
	for key, o := range next {
		old, exists := s.objects[key]
		if !exists {
			s.record(watch.Added, o)
			s.objects[key] = o
			continue
		}
		// The version of an unchanged object stays, so a comparison finds it equal.
		o.SetResourceVersion(old.GetResourceVersion())
		if !apiequality.Semantic.DeepEqual(old, o) {
			s.record(watch.Modified, o)
			s.objects[key] = o
		}
	}
	// A single close wakes all watches, however many objects have changed.
	if s.version != before {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// record gives the object the next version, and appends the change to the history.
func (s *store) record(event watch.EventType, o object) {
	s.version++
	o.SetResourceVersion(strconv.FormatUint(s.version, 10))
	s.history = append(s.history, change{s.version, event, o})
	if n := len(s.history) - s.limit; n > 0 {
		s.dropped = s.history[n-1].version
		// The history keeps its last changes in a new array, so that the old array and its objects can be freed.
		s.history = append([]change(nil), s.history[n:]...)
	}
}

// IsWatchListSemanticsUnSupported tells reflectors to list before they watch.
func (s *store) IsWatchListSemanticsUnSupported() bool { return true }

// List returns copies of all objects, in one page.
func (s *store) List(metav1.ListOptions) (runtime.Object, error) {
	objects, version := s.all()
	list := &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(version, 10)}}
	for _, o := range objects {
		list.Items = append(list.Items, runtime.RawExtension{Object: o})
	}
	return list, nil
}

// all returns copies of all objects, sorted by namespace and name, and their version.
func (s *store) all() ([]object, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	objects := make([]object, 0, len(s.objects))
	for _, o := range s.objects {
		objects = append(objects, o.DeepCopyObject().(object))
	}
	slices.SortFunc(objects, func(a, b object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return objects, s.version
}

// Watch sends the changes after the requested version, and then all further changes, until it is stopped.
func (s *store) Watch(o metav1.ListOptions) (watch.Interface, error) {
	from, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("resource version %q: %v", o.ResourceVersion, err))
	}
	if _, _, ok := s.since(from); !ok {
		return nil, apierrors.NewResourceExpired(fmt.Sprintf("version %d is no longer remembered", from))
	}
	w := &storeWatch{store: s, events: make(chan watch.Event), stopped: make(chan struct{})}
	go w.run(from)
	return w, nil
}

// since returns the changes after a version, and a channel that the next change closes. It returns false if the history lacks
// some of these changes.
func (s *store) since(version uint64) ([]change, <-chan struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version < s.dropped {
		return nil, nil, false
	}
	n := 0
	for n < len(s.history) && s.history[n].version <= version {
		n++
	}
	// The full slice expression keeps a later append out of the array that the caller reads.
	return s.history[n:len(s.history):len(s.history)], s.changed, true
}

// storeWatch is a watch of a store.
type storeWatch struct {
	store   *store
	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

// Stop ends the watch.
func (w *storeWatch) Stop() { w.once.Do(func() { close(w.stopped) }) }

// ResultChan is closed when the watch ends.
func (w *storeWatch) ResultChan() <-chan watch.Event { return w.events }

// run sends the changes after a version until the watch is stopped, or falls behind the history.
func (w *storeWatch) run(from uint64) {
	defer close(w.events)
	for {
		changes, next, ok := w.store.since(from)
		if !ok {
			status := apierrors.NewResourceExpired("the watch fell behind").ErrStatus
			w.send(watch.Event{Type: watch.Error, Object: &status})
			return
		}
		for _, c := range changes {
			if !w.send(watch.Event{Type: c.event, Object: c.object.DeepCopyObject()}) {
				return
			}
			from = c.version
		}
		select {
		case <-next:
		case <-w.stopped:
			return
		}
	}
}

// send sends an event. It returns false if the watch was stopped meanwhile.
func (w *storeWatch) send(e watch.Event) bool {
	select {
	case w.events <- e:
		return true
	case <-w.stopped:
		return false
	}
}
