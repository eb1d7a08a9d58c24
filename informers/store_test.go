package informers

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/fstest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// podManifests are pods with these names and labels.
func podManifests(t *testing.T, labels map[string]string) Manifests {
	t.Helper()
	files := fstest.MapFS{}
	for name, label := range labels {
		files[name+".yaml"] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"apiVersion: v1\nkind: Pod\nmetadata: {namespace: ns, name: %s, labels: {l: %q}}\n", name, label)}
	}
	m, err := ReadFS(files)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func listVersion(t *testing.T, s *store) string {
	t.Helper()
	list, err := s.List(metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		t.Fatal(err)
	}
	return m.GetResourceVersion()
}

func next(t *testing.T, w watch.Interface) (watch.Event, bool) {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		return e, ok
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return watch.Event{}, false
	}
}

// A reload is seen as its difference, by watches that are open and by those opened later at the same version.
func TestReloadIsTheDifference(t *testing.T) {
	f := NewFiles()
	load := func(labels map[string]string) {
		t.Helper()
		if err := f.Load(podManifests(t, labels)); err != nil {
			t.Fatal(err)
		}
	}
	load(map[string]string{"gone": "1", "changed": "1", "same": "1"})
	version := listVersion(t, f.pods)
	early, err := f.pods.Watch(metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	load(map[string]string{"same": "1", "changed": "2", "new": "1"})
	late, err := f.pods.Watch(metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]watch.EventType{"gone": watch.Deleted, "changed": watch.Modified, "new": watch.Added}
	for _, w := range []watch.Interface{early, late} {
		got := map[string]watch.EventType{}
		last := version
		for range want {
			e, _ := next(t, w)
			o := e.Object.(object)
			got[o.GetName()] = e.Type
			if before, now := number(t, last), number(t, o.GetResourceVersion()); now <= before {
				t.Errorf("version %d after %d", now, before)
			}
			last = o.GetResourceVersion()
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		w.Stop()
		if _, open := next(t, w); open {
			t.Error("an event after Stop")
		}
	}
	if load(map[string]string{"same": "1", "changed": "2", "new": "1"}); listVersion(t, f.pods) != last(t, f.pods) {
		t.Error("a reload of the same raised the version")
	}
}

func number(t *testing.T, version string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// last is the version of the last change.
func last(t *testing.T, s *store) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return strconv.FormatUint(s.history[len(s.history)-1].version, 10)
}

// A version that is no longer remembered is refused as the API server does, so that the reflector lists again.
func TestForgottenVersion(t *testing.T) {
	f := NewFiles()
	f.pods.limit = 3
	for i := range 10 {
		if err := f.Load(podManifests(t, map[string]string{"a": strconv.Itoa(i)})); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.pods.Watch(metav1.ListOptions{ResourceVersion: "2"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("got %v", err)
	}
	if _, err := f.pods.Watch(metav1.ListOptions{ResourceVersion: "x"}); !apierrors.IsBadRequest(err) {
		t.Errorf("got %v", err)
	}
	w, err := f.pods.Watch(metav1.ListOptions{ResourceVersion: listVersion(t, f.pods)})
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
}

// A watch from any version sends exactly the changes after it, for any sequence of loads.
func TestWatchFromEveryVersion(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	f := NewFiles()
	states := map[string]map[string]string{listVersion(t, f.pods): {}}
	for range 30 {
		labels := map[string]string{}
		for i := range 5 {
			if rng.IntN(2) == 0 {
				labels[fmt.Sprintf("p%d", i)] = strconv.Itoa(rng.IntN(2))
			}
		}
		if err := f.Load(podManifests(t, labels)); err != nil {
			t.Fatal(err)
		}
		states[listVersion(t, f.pods)] = labels
	}
	end := listVersion(t, f.pods)
	for from, state := range states {
		w, err := f.pods.Watch(metav1.ListOptions{ResourceVersion: from})
		if err != nil {
			t.Fatal(err)
		}
		got := maps.Clone(state)
		for version := from; version != end; {
			e, _ := next(t, w)
			o := e.Object.(object)
			version = o.GetResourceVersion()
			if e.Type == watch.Deleted {
				delete(got, o.GetName())
			} else {
				got[o.GetName()] = o.GetLabels()["l"]
			}
		}
		w.Stop()
		if !maps.Equal(got, states[end]) {
			t.Errorf("from %s: %v, want %v", from, got, slices.Collect(maps.Keys(states[end])))
		}
	}
}
