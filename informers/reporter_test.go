package informers_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// The problems of an object are reported once, until they change. Problems of pods are reported on the node of the pod.
func TestProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := informers.NewFiles()
		s := start(t, f.Source(settings))
		s.synced(t)
		unreadable := policy.Problem{Field: "metadata.annotations[x]", Message: "no JSON"}
		s.sink.setProblems("a", unreadable)
		s.sink.setProblems("b", unreadable)
		const bad = `{ingress: [{from: [{ipBlock: {cidr: here}}]}]}`
		const warning = `MultiNetworkPolicy ns/p InvalidMultiNetworkPolicy: spec.ingress[0].from[0].ipBlock.cidr: "here" is not a CIDR, so the block allows nobody`
		for _, step := range []struct {
			name      string
			documents []string
			reports   []string
			gone      int
		}{
			{"new problems", []string{policyDoc("p", "1", bad), podDoc("a", "here", "1"), podDoc("b", "there", "1")},
				[]string{warning, "Pod ns/a InvalidNetworkStatus: metadata.annotations[x]: no JSON"}, 0},
			{"the same problems after a change", []string{policyDoc("p", "2", bad)}, nil, 0},
			{"no more problems", []string{policyDoc("p", "2", "{}")}, nil, 1},
			{"problems again", []string{policyDoc("p", "2", bad)}, []string{warning}, 1},
			{"gone", nil, nil, 1},
			{"another object with the name", []string{policyDoc("p", "2", bad)}, []string{warning}, 1},
		} {
			load(t, f, step.documents...)
			synctest.Wait()
			if got := s.events.take(); !slices.Equal(got, step.reports) {
				t.Errorf("%s: reported %q, want %q", step.name, got, step.reports)
			}
			if lines := s.log.With("problems are gone"); len(lines) != step.gone {
				t.Errorf("%s: logged %q", step.name, lines)
			}
		}
	})
}

// reports is a running Reporter with its output.
type reports struct {
	*informers.Reporter
	ctx    context.Context
	log    await.Log
	events warnings
}

func newReports(t *testing.T) *reports {
	r := &reports{}
	r.Reporter = informers.NewReporter(&r.events)
	r.ctx = logr.NewContext(t.Context(), r.log.Logger())
	go r.Run(r.ctx)
	return r
}

func policyNamed(namespace, name string) informers.Subject {
	return informers.Subject{Kind: informers.KindPolicy, UID: "u", NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
}

// report reports a problem, or no problem for an empty message.
func (r *reports) report(about informers.Subject, message string) {
	var problems []policy.Problem
	if message != "" {
		problems = append(problems, policy.Problem{Field: "spec", Message: message})
	}
	r.Report(r.ctx, about, problems)
}

// warns waits and compares the warnings since the last call.
func (r *reports) warns(t *testing.T, after time.Duration, want ...string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	for i := range want {
		want[i] = "MultiNetworkPolicy " + want[i]
	}
	slices.Sort(want)
	if got := r.events.take(); !slices.Equal(got, want) {
		t.Errorf("reported %q, want %q", got, want)
	}
}

// An object that changes all the time is reported a few times at once. Its latest problems follow later, with the number of
// suppressed reports.
func TestReportBudgetOfObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReports(t)
		p := policyNamed("ns", "p")
		for i := range 10 {
			r.report(p, fmt.Sprint(i))
		}
		r.warns(t, 0, "ns/p InvalidMultiNetworkPolicy: spec: 0", "ns/p InvalidMultiNetworkPolicy: spec: 1",
			"ns/p InvalidMultiNetworkPolicy: spec: 2", "ns/p InvalidMultiNetworkPolicy: spec: 3")
		r.warns(t, 14*time.Second)
		r.warns(t, 7*time.Second, "ns/p InvalidMultiNetworkPolicy: spec: 9")
		if lines := r.log.With(`"suppressedReports"=6`, `"problem"="9"`); len(lines) != 1 {
			t.Errorf("logged %q", r.log.With(""))
		}
		r.warns(t, time.Hour)
		if n := r.Suppressed(); n != 6 {
			t.Errorf("%d reports suppressed", n)
		}
	})
}

// A report that waits for its budget follows the object: it is dropped with the object and with its problems.
func TestReportWaits(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(r *reports, p informers.Subject)
		want []string
		log  string
	}{
		"forgotten": {func(r *reports, p informers.Subject) { r.Forget(p) }, nil, ""},
		"not in a list": {func(r *reports, p informers.Subject) {
			r.Retain(p.Kind, func(types.NamespacedName) bool { return false })
		}, nil, ""},
		"in a list": {func(r *reports, p informers.Subject) {
			r.Retain(p.Kind, func(types.NamespacedName) bool { return true })
		}, []string{"ns/p InvalidMultiNetworkPolicy: spec: 4"}, ""},
		"another kind's": {func(r *reports, p informers.Subject) {
			r.Retain("Pod", func(types.NamespacedName) bool { return false })
		}, []string{"ns/p InvalidMultiNetworkPolicy: spec: 4"}, ""},
		"as before":      {func(r *reports, p informers.Subject) { r.report(p, "3") }, nil, ""},
		"another object": {func(r *reports, p informers.Subject) { p.UID = "v"; r.report(p, "3") }, []string{"ns/p InvalidMultiNetworkPolicy: spec: 3"}, ""},
		"solved":         {func(r *reports, p informers.Subject) { r.report(p, "") }, nil, "The problems are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReports(t)
				p := policyNamed("ns", "p")
				for i := range 5 {
					r.report(p, fmt.Sprint(i))
				}
				r.events.take()
				before := len(r.log.With(""))
				tc.then(r, p)
				r.warns(t, time.Hour, tc.want...)
				if lines := r.log.With("")[before:]; len(lines) != len(tc.want) && tc.log == "" || len(r.log.With(tc.log)) == 0 {
					t.Errorf("logged %q", lines)
				}
			})
		})
	}
}

// A namespace full of objects with problems delays no other namespace, and all of its problems are reported in the end.
func TestReportBudgetOfNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReports(t)
		var all []string
		for i := range 100 {
			name := fmt.Sprint("p", i)
			r.report(policyNamed("many", name), "wrong")
			all = append(all, fmt.Sprintf("MultiNetworkPolicy many/%s InvalidMultiNetworkPolicy: spec: wrong", name))
		}
		got := r.events.take()
		if len(got) != 40 {
			t.Errorf("%d reported at once", len(got))
		}
		r.report(policyNamed("few", "p"), "wrong")
		r.warns(t, 0, "few/p InvalidMultiNetworkPolicy: spec: wrong")
		time.Sleep(5 * time.Minute)
		got = append(got, r.events.take()...)
		slices.Sort(got)
		slices.Sort(all)
		if !slices.Equal(got, all) {
			t.Errorf("reported %q", got)
		}
	})
}
