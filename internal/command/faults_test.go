package command

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// faults makes some of the applies fail, in ways that the kernel has.
type faults struct {
	mu   sync.Mutex
	rand *rand.Rand // nil: none
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

type faultyTable struct {
	table
	pod    string
	faults *faults
}

func (f *faults) around(open openTable) openTable {
	return func(pod, netns string) (table, error) {
		inner, err := open(pod, netns)
		if err != nil {
			return nil, err
		}
		return faultyTable{inner, pod, f}, nil
	}
}

// always makes all applies of a pod fail, or none.
func (f *faults) always(pod, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.each = map[string]string{pod: kind}
}

func (f *faults) next(pod string) string {
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
func (t faultyTable) Apply(ctx context.Context, want engine.Ruleset) error {
	switch kind := t.faults.next(t.pod); kind {
	case refused, exists:
		err := t.table.Apply(ctx, spoiled(want, kind))
		if err == nil {
			return errors.New("the kernel took what it cannot")
		}
		return err
	case tooLate: // each time that it was made anew
		return &engine.MessageError{Op: "BATCH_BEGIN", Errno: unix.ERESTART}
	case lostAnswer:
		return errors.Join(t.table.Apply(ctx, want), unix.ENOBUFS)
	case notSent:
		return unix.EINTR
	case closed:
		return errors.Join(t.Close(), unix.EBADF)
	}
	return t.table.Apply(ctx, want)
}

// spoiled is a batch that would open the pod, and that the kernel refuses for its last message.
func spoiled(want engine.Ruleset, kind string) engine.Ruleset {
	open := slices.DeleteFunc(slices.Clone(want.Chains), func(c *engine.Chain) bool { return c.Name == "input" || c.Name == "output" })
	last := &engine.Chain{Name: "zzz"}
	if kind == refused {
		last.Rules = []engine.Rule{{Statements: []expr.Statement{expr.Jump("no-such-chain")}}}
	}
	rs := engine.NewRuleset(slices.Clone(want.Sets), append(open, last))
	if kind == exists {
		rs.Chains = append(rs.Chains, last)
	}
	return rs
}
