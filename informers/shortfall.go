package informers

import (
	"context"
	"slices"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// ReportShortfalls reports the parts of valid policies that have no effect, until the context ends: an Event and a log line for
// each. It calls list at intervals, and reports a shortfall that two calls in a row return, since a policy is often created
// before its pods.
func ReportShortfalls(ctx context.Context, events EventSink, list func() []cache.Shortfall, every time.Duration) {
	// A Reporter for each reason: the problems of a policy for one reason must not end its problems for another.
	reporters := map[policy.Reason]*Reporter{}
	report := func(s shortfall, problems []policy.Problem) {
		r := reporters[s.Reason]
		if r == nil {
			r = newReporter(events, func(string) policy.Reason { return s.Reason })
			reporters[s.Reason] = r
		}
		r.Report(ctx, s.subject(), problems)
	}
	// The shortfalls of the last call; a shortfall in two calls in a row is reported.
	var before []shortfall
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var now []shortfall
		for _, s := range list() {
			now = append(now, shortfall(s))
		}
		for _, s := range now {
			if twice := s.alsoIn(before); len(twice) > 0 {
				report(s, twice)
			}
		}
		// A shortfall that is gone ends its report.
		for _, s := range before {
			if len(s.alsoIn(now)) == 0 {
				report(s, nil)
			}
		}
		for _, r := range reporters {
			r.flush(ctx)
		}
		before = now
	}
}

// shortfall is a cache.Shortfall.
type shortfall cache.Shortfall

// alsoIn returns the problems of s that the same shortfall in a list has too.
func (s shortfall) alsoIn(list []shortfall) []policy.Problem {
	i := slices.IndexFunc(list, func(o shortfall) bool { return o.UID == s.UID && o.Reason == s.Reason })
	return slices.DeleteFunc(slices.Clone(s.Problems), func(p policy.Problem) bool {
		return i < 0 || !slices.Contains(list[i].Problems, p)
	})
}

// subject returns the policy as the object of an Event.
func (s shortfall) subject() Subject {
	return Subject{APIVersion: mnpv1.SchemeGroupVersion.String(), Kind: KindPolicy, NamespacedName: s.Policy, UID: s.UID}
}
