package informers

import (
	"context"
	"fmt"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// feed takes the records of one kind from a reflector and gives them to the sink. It implements toolscache.ReflectorStore, but
// stores no objects: the sink knows which objects it has, and so which objects a new list lacks. Only one goroutine calls it at a
// time: the reflector, or takeInitial while the reflector waits.
type feed struct {
	ctx    context.Context // carries the logger; its end has no effect
	in     *Informers
	kind   kind
	synced atomic.Bool
}

// notifyEvery is the number of listed records after which Notify is called, so that workers start before a long list is handled.
const notifyEvery = 256

// Add implements toolscache.ReflectorStore.
func (f *feed) Add(obj any) error { return f.Update(obj) }

// Update implements toolscache.ReflectorStore.
func (f *feed) Update(obj any) error {
	r, ok := obj.(*record)
	if !ok {
		return fmt.Errorf("a reflector of kind %s gave a %T", f.kind.name, obj)
	}
	f.upsert(r)
	f.in.config.Notify()
	f.in.wakeRefetch()
	return nil
}

// Delete implements toolscache.ReflectorStore.
func (f *feed) Delete(obj any) error {
	r, ok := obj.(*record)
	if !ok {
		return fmt.Errorf("a reflector of kind %s gave a %T", f.kind.name, obj)
	}
	f.remove(r.Key)
	f.in.config.Notify()
	f.in.wakeRefetch()
	return nil
}

// Replace implements toolscache.ReflectorStore. It upserts all listed records, and removes from the sink the objects that the
// list lacks. After the first list, the feed is in sync.
func (f *feed) Replace(list []any, _ string) error {
	listed := make(map[cache.Key]struct{}, len(list))
	for i, obj := range list {
		r, ok := obj.(*record)
		if !ok {
			return fmt.Errorf("a reflector of kind %s listed a %T", f.kind.name, obj)
		}
		// An object that cannot be decoded counts too: it exists, so its last version stays in force.
		listed[r.Key] = struct{}{}
		if r.isTaken {
			continue // taken by takeInitial already
		}
		f.upsert(r)
		if i%notifyEvery == notifyEvery-1 {
			f.in.config.Notify()
		}
	}
	// Only the sink knows which objects existed before, since the feed stores none.
	for _, key := range f.kind.keys(f.in.config.Sink) {
		if _, ok := listed[key]; !ok {
			f.remove(key)
		}
	}
	// This also ends the reports of objects that the sink never had, because they could not be decoded.
	f.in.config.Reporter.Retain(f.kind.name, func(key cache.Key) bool { _, ok := listed[key]; return ok })
	f.synced.Store(true)
	f.in.config.Notify()
	f.in.wakeRefetch()
	return nil
}

// takeInitial gives the initial events of a watch to the sink while they arrive. A reflector would collect all objects before it
// passes them on, which takes more memory than the cache. The reflector gets an empty record in the place of each object, from
// which it learns which objects exist.
func (f *feed) takeInitial(w watch.Interface) watch.Interface {
	isInitial, count := true, 0
	return watch.Filter(w, func(event watch.Event) (watch.Event, bool) {
		r, ok := event.Object.(*record)
		switch {
		case !isInitial:
		case event.Type == watch.Error:
			isInitial = false // the reflector leaves this watch, and may call the feed for another watch
		case !ok:
		case event.Type == watch.Bookmark:
			isInitial = !r.end // then the reflector calls the feed
		case event.Type == watch.Added || event.Type == watch.Modified:
			f.upsert(r)
			if count++; count%notifyEvery == 0 {
				f.in.config.Notify()
			}
			event.Object = r.taken()
		}
		return event, true
	})
}

// Resync implements toolscache.ReflectorStore.
func (*feed) Resync() error { return nil }

// upsert gives a record to the sink, and its problems to the Reporter. A record that could not be decoded does not reach the
// sink: the last version of the object stays in force, or policies would be lifted by a mistake in an edit.
func (f *feed) upsert(r *record) {
	about := Subject{APIVersion: f.kind.apiVersion, Kind: f.kind.name, NamespacedName: r.Key, UID: r.uid}
	if r.problem != "" {
		f.in.config.Reporter.Report(f.ctx, about, undecodable(r.problem))
		return
	}
	receipt := Receipt{Kind: f.kind.name, Key: r.Key, UID: r.uid, Version: r.version, Changed: r.changed}
	if r.pod != nil {
		receipt.IsLocal, receipt.Trace = f.in.config.Settings.isLocal(r.pod.Node), r.pod.trace
	}
	// Received comes before the sink has the object: metrics measure from there. After Taken, observers may rely on the
	// sink.
	f.in.config.Observer.Received(receipt)
	problems := f.kind.upsert(f.in.config.Sink, r)
	f.in.config.Observer.Taken(receipt)
	if r.pod != nil && !receipt.IsLocal {
		return // the agent of the pod's node reports its problems
	}
	f.in.config.Reporter.Report(f.ctx, about, problems)
}

// remove removes an object from the sink, and drops its reports.
func (f *feed) remove(key cache.Key) {
	f.kind.remove(f.in.config.Sink, key)
	f.in.config.Observer.Gone(f.kind.name, key)
	f.in.config.Reporter.Forget(Subject{Kind: f.kind.name, NamespacedName: key})
}
