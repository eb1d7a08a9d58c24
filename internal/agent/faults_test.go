package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// tables are the tables of an agent. Some of their applies fail, in ways that the kernel has.
type tables struct {
	mu   sync.Mutex
	open map[string]*faultyTable // by pod, the last opened table
	rand *rand.Rand              // nil: none
	made map[string]int
	each map[string]string // the kind of every apply, by pod
}

// The kinds of faults: the errno is what the kernel says, or would.
const (
	refused    = "refused, ENOENT"
	exists     = "refused, EEXIST"
	tooLate    = "refused, ERESTART"
	lostAnswer = "lost answer, ENOBUFS"
	notSent    = "not sent, EINTR"
	closed     = "closed, EBADF"
)

var faultKinds = []string{refused, exists, tooLate, lostAnswer, notSent, closed}

// faultyTable is a table. The lock keeps the test and the reconciler from using it at the same time.
type faultyTable struct {
	mu sync.Mutex
	reconciler.Table
	pod    string
	tables *tables
}

func (f *tables) around(open reconciler.OpenTable) reconciler.OpenTable {
	return func(pod, netns string) (reconciler.Table, error) {
		inner, err := open(pod, netns)
		if err != nil {
			return nil, err
		}
		t := &faultyTable{Table: inner, pod: pod, tables: f}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.open == nil {
			f.open = map[string]*faultyTable{}
		}
		f.open[pod] = t
		return t, nil
	}
}

// check looks at the table of a pod.
func (f *tables) check(t *testing.T, pod string) engine.Finding {
	t.Helper()
	f.mu.Lock()
	table := f.open[pod]
	f.mu.Unlock()
	found, err := table.Check(t.Context())
	if err != nil {
		t.Error(err)
	}
	return found
}

// Changed implements reconciler.Table.
func (t *faultyTable) Changed(ctx context.Context) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Table.Changed(ctx)
}

// IsExposed implements reconciler.Table.
func (t *faultyTable) IsExposed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Table.IsExposed()
}

// Check implements reconciler.Table.
func (t *faultyTable) Check(ctx context.Context) (engine.Finding, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Table.Check(ctx)
}

// always makes all applies of a pod fail, or none.
func (f *tables) always(pod, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.each = map[string]string{pod: kind}
}

func (f *tables) next(pod string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rand == nil {
		return f.each[pod]
	}
	if f.rand.IntN(5) > 0 {
		return ""
	}
	kind := faultKinds[f.rand.IntN(len(faultKinds))]
	f.made[kind]++
	return kind
}

// Apply fails before the kernel, in it, or after it.
func (t *faultyTable) Apply(ctx context.Context, want engine.Tables) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch kind := t.tables.next(t.pod); kind {
	case refused, exists:
		err := t.Table.Apply(ctx, spoiled(want, kind))
		if err == nil {
			return errors.New("the kernel took what it cannot")
		}
		return err
	case tooLate: // each time that it was made anew
		return &nfnl.MessageError{Op: "BATCH_BEGIN", Errno: unix.ERESTART}
	case lostAnswer:
		return errors.Join(t.Table.Apply(ctx, want), unix.ENOBUFS)
	case notSent:
		return unix.EINTR
	case closed:
		return errors.Join(t.Close(), unix.EBADF)
	}
	return t.Table.Apply(ctx, want)
}

// spoiled is a batch that would open the pod, and that the kernel refuses for its last message.
func spoiled(tables engine.Tables, kind string) engine.Tables {
	want := tables[engine.Inet]
	open := slices.DeleteFunc(slices.Clone(want.Chains), func(c *engine.Chain) bool { return c.Hook != engine.HookNone })
	last := &engine.Chain{Name: "zzz"}
	if kind == refused {
		last.Rules = []engine.Rule{{Statements: []expr.Statement{expr.Jump("no-such-chain")}}}
	}
	rs := engine.NewRuleset(slices.Clone(want.Sets), append(open, last))
	if kind == exists {
		rs.Chains = append(rs.Chains, last)
	}
	return engine.Tables{engine.Inet: rs, engine.Bridge: tables[engine.Bridge]}
}
