package agent

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// meteredTable is a reconciler.Table that adds its costs to the metrics. Each pod has its own; its methods are called
// by a single goroutine at a time.
type meteredTable struct {
	reconciler.Table
	metrics *metrics
	// The values of engine.Stats that the metrics include already. engine.Stats has totals of a table, the metrics are
	// totals of all tables.
	counted engine.Stats

	pod   cache.Key
	netns string // path of the network namespace
	readings
}

// readings are the values of a table's counters that the metrics include already.
type readings struct {
	drops    counted // of the counters of drops
	policies counted // of the counters of policies
	// deleted has the families whose rules are forgotten, so that a change does not visit all counters again
	deleted [len(expr.TableFamilies)]bool
}

// forgetDeleted forgets the counters of tables that Apply has deleted: a table that is made later has the same handles for other rules.
func (r *readings) forgetDeleted(now engine.Tables) {
	for f, rules := range now {
		if rules.IsEmpty() && !r.deleted[f] {
			isDeleted := func(rule ruleHandle, _ engine.RuleCount) bool { return rule.family == expr.TableFamily(f) }
			maps.DeleteFunc(r.drops.rules, isDeleted)
			maps.DeleteFunc(r.policies.rules, isDeleted)
		}
		r.deleted[f] = rules.IsEmpty()
	}
}

// meter returns a function that opens tables like open, with metrics. A table that is opened again goes on with its readings, since its
// counters in the kernel go on. A table that was deleted has none.
func (m *metrics) meter(open reconciler.OpenTable) reconciler.OpenTable {
	return func(pod, netns string) (reconciler.Table, error) {
		inner, err := open(pod, netns)
		if err != nil {
			return nil, err
		}
		key := keyOf(pod)
		return &meteredTable{Table: inner, metrics: m, pod: key, netns: netns, readings: m.drops.resume(key, netns)}, nil
	}
}

// Close implements reconciler.Table.
func (t *meteredTable) Close() error {
	t.metrics.drops.keep(t.pod, t.netns, t.readings)
	return t.Table.Close()
}

// keyOf returns the key of an object from its name NAMESPACE/NAME: of a pod as a reconciler.OpenTable gets it, or of a policy in a
// comment.
func keyOf(object string) cache.Key {
	namespace, name, _ := strings.Cut(object, "/")
	return cache.Key{Namespace: namespace, Name: name}
}

// Apply implements reconciler.Table.
func (t *meteredTable) Apply(ctx context.Context, want engine.Tables) error {
	start := time.Now()
	err := t.Table.Apply(ctx, want)
	if err == nil {
		t.forgetDeleted(want)
	}
	t.metrics.applies.Observe(time.Since(start).Seconds())
	t.count(err)
	return err
}

// Check implements reconciler.Table.
func (t *meteredTable) Check(ctx context.Context) (engine.Finding, error) {
	found, err := t.Table.Check(ctx)
	t.count(err)
	return found, err
}

// Changed implements reconciler.Table. The reconciler asks every table from time to time, so the counters of rules are read
// here.
func (t *meteredTable) Changed(ctx context.Context) (bool, error) {
	changed, err := t.Table.Changed(ctx)
	if err == nil {
		err = t.readCounts()
	}
	return changed, err
}

// readCounts adds the packets that the rules have counted since the last readings, unless these are recent: a reading for the
// policies dumps all rules of the table.
func (t *meteredTable) readCounts() error {
	// Tables of tests have no counters.
	reader, ok := t.Table.(interface {
		Counts() ([]engine.RuleCount, error)
		DropCounts() ([]engine.RuleCount, error)
	})
	if !ok {
		return nil
	}
	if time.Since(t.drops.at) > dropCountsInterval {
		counts, err := reader.DropCounts()
		if err != nil {
			return err
		}
		t.drops = t.metrics.drops.add(t.pod, t.drops, counts)
	}
	if !t.metrics.countPolicies || time.Since(t.policies.at) < countsInterval {
		return nil
	}
	counts, err := reader.Counts()
	if err == nil {
		t.policies = t.metrics.policies.add(t.policies, counts)
	}
	return err
}

// count adds the costs since the last call. engine.Stats only grows, so the difference is the new part.
// A failed call has costs too, so the costs are counted whatever the error is.
// The totals are exact also if calls fail.
func (t *meteredTable) count(err error) {
	m := t.metrics
	if err != nil {
		// The errno is the label of the metric, for example EPERM or ENOSPC.
		m.refused.WithLabelValues(errnoOf(err)).Inc()
	}
	counting, ok := t.Table.(interface{ Stats() engine.Stats })
	if !ok {
		return
	}
	now := counting.Stats()
	m.batches.Add(float64(now.Batches - t.counted.Batches))
	m.messages.Add(float64(now.Messages - t.counted.Messages))
	m.bytes.Add(float64(now.Bytes - t.counted.Bytes))
	m.repairs.Add(float64(now.Repairs - t.counted.Repairs))
	m.restarts.Add(float64(now.Restarts - t.counted.Restarts))
	m.seeded.Add(float64(now.Seeded - t.counted.Seeded))
	m.seedFailures.Add(float64(now.SeedFailures - t.counted.SeedFailures))
	m.readBacks.Add(float64(now.ReadBacks - t.counted.ReadBacks))
	t.counted = now
}

// errnoOf returns the name of the errno of an error, or "none" for an error without errno.
func errnoOf(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return "none"
}
