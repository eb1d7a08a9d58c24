package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// Features are what not every kernel has.
type Features struct {
	// Owner: a table can belong to a socket and outlive it (NFT_TABLE_F_OWNER and _PERSIST, kernel 6.9). See Options.Own.
	Owner bool
}

// Probe asks the kernel, in a network namespace of its own that is gone afterwards. It needs CAP_SYS_ADMIN and
// CAP_NET_ADMIN, as Open does. An error also means that nothing else will work: no nf_tables, or no right to it.
func Probe() (Features, error) {
	var f Features
	err := inOwnNamespace(func(e *Engine) error {
		table := NewRuleset(nil, []*Chain{{Name: "probe"}})
		if err := e.apply(context.Background(), table); err != nil {
			return err
		}
		e.flags = owned
		err := e.apply(context.Background(), table)
		f.Owner = err == nil
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) { // the second by older kernels
			return nil
		}
		return err
	})
	if err != nil {
		return f, fmt.Errorf("probe nf_tables: %w", err)
	}
	return f, nil
}

// Try reports whether the kernel accepts the Ruleset as a table of the family, in a network namespace like Probe's. The kernel
// would refuse the same in every pod, together with all other rules of the table.
func Try(f expr.TableFamily, rs Ruleset) error {
	return inOwnNamespace(func(e *Engine) error {
		e.family = f
		return e.apply(context.Background(), rs)
	})
}

// inOwnNamespace gives f an Engine in a network namespace that is gone afterwards.
func inOwnNamespace(f func(*Engine) error) error {
	done := make(chan error)
	go func() { done <- unshared(f) }()
	return <-done
}

// unshared takes the thread back afterwards: it may be the process's first one, which cannot end before the process, and
// by which others find the process's network namespace.
func unshared(f func(*Engine) error) error {
	runtime.LockOSThread() // until the thread is back; if it cannot come back, for good
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	err = inside(f)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// inside runs f with an Engine in the namespace that the thread is in.
func inside(f func(*Engine) error) error {
	netns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer netns.Close()
	t, err := nfnl.Dial(netns)
	if err != nil {
		return err
	}
	return errors.Join(f(newEngine("probe", t, Options{})), t.Close())
}
