package informers

import (
	"context"
	"slices"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// ReportUnresolved says until the context ends which policies name ports that nobody has: an Event and a log line for
// each, once. It looks at the list at intervals, and believes what it has seen twice in a row, since a policy often is
// there before its pods.
func ReportUnresolved(ctx context.Context, events EventSink, list func() []cache.Unresolved, every time.Duration) {
	r := NewReporter(events)
	r.reason = func(string) string { return "UnresolvedNamedPort" }
	var before []unresolved
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var now []unresolved
		for _, u := range list() {
			now = append(now, unresolved(u))
		}
		for _, u := range now {
			if twice := u.alsoIn(before); len(twice.Problems) > 0 {
				r.Report(ctx, twice.subject(), twice.Problems)
			}
		}
		for _, u := range before {
			if len(u.alsoIn(now).Problems) == 0 {
				r.Report(ctx, u.subject(), nil)
			}
		}
		before = now
	}
}

// unresolved is a cache.Unresolved.
type unresolved cache.Unresolved

// alsoIn leaves the problems that a list has too.
func (u unresolved) alsoIn(list []unresolved) unresolved {
	i := slices.IndexFunc(list, func(v unresolved) bool { return v.UID == u.UID })
	u.Problems = slices.DeleteFunc(slices.Clone(u.Problems), func(p cache.Problem) bool {
		return i < 0 || !slices.Contains(list[i].Problems, p)
	})
	return u
}

func (u unresolved) subject() Subject {
	return Subject{APIVersion: mnpv1.SchemeGroupVersion.String(), Kind: kindPolicy, NamespacedName: u.Policy, UID: u.UID}
}
