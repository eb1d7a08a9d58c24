//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// Features are the optional features of a kernel, see Probe.
type Features struct {
	// Owner: a table can belong to a socket and outlive it (NFT_TABLE_F_OWNER and _PERSIST, kernel 6.9). See Options.Own.
	Owner bool
}

// Probe asks the kernel for its features, in a network namespace of its own that is gone afterwards. It needs
// CAP_SYS_ADMIN and CAP_NET_ADMIN, as Open does. An error means that the agent cannot work: the kernel has no
// nf_tables, or the process has no right to it.
func Probe() (Features, error) {
	var f Features
	err := inOwnNamespace(func(e *Engine) error {
		table := NewRuleset(nil, []*Chain{{Name: "probe"}})
		if err := e.apply(context.Background(), table); err != nil {
			return err
		}
		// The same table again, now with an owner: kernels that cannot do that refuse this batch only.
		e.flags = owned
		err := e.apply(context.Background(), table)
		f.Owner = err == nil
		// EINVAL is the answer of older kernels.
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

// Try returns an error unless the kernel accepts the Ruleset as a table of the family, in a network namespace like
// Probe's. The kernel would refuse the same content in every pod, together with all other rules of the table.
func Try(f expr.TableFamily, rs Ruleset) error {
	return inOwnNamespace(func(e *Engine) error {
		e.family = f
		return e.apply(context.Background(), rs)
	})
}

// inOwnNamespace calls f with an Engine in a network namespace that is gone afterwards. A goroutine of its own does it,
// because that goroutine may keep its thread for good.
func inOwnNamespace(f func(*Engine) error) error {
	return nfnl.Elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return nil
	}, func() error { return inside(f) })
}

// inside runs f with an Engine in the namespace that the thread is in.
func inside(f func(*Engine) error) error {
	netns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer netns.Close()
	t, err := dialLoading(netns)
	if err != nil {
		return err
	}
	e := newEngine("probe", t, Options{})
	err = e.awaitTables()
	if err == nil {
		err = f(e)
	}
	return errors.Join(err, t.Close())
}

// The kernel loads a module when the first process needs it. A second process that needs it meanwhile gets an error, the same
// error as on a kernel without the module. So Probe and Try ask again for loadingPatience.
const (
	loadingPatience = 5 * time.Second
	loadingPause    = 20 * time.Millisecond
)

// dialLoading opens a socket, also while the kernel loads nfnetlink.
func dialLoading(netns *os.File) (t *nfnl.Conn, err error) {
	err = whileLoading(unix.EPROTONOSUPPORT, func() error {
		t, err = nfnl.Dial(netns)
		return err
	})
	return t, err
}

// awaitTables returns when nf_tables answers, also while the kernel loads it.
// A kernel without nf_tables is an error after loadingPatience.
func (e *Engine) awaitTables() error {
	x, done := e.exchange()
	defer done()
	return whileLoading(unix.EINVAL, func() error {
		_, err := x.generation(e.transport)
		return err
	})
}

// whileLoading repeats a question for loadingPatience while the kernel answers that a module is missing.
func whileLoading(missing unix.Errno, ask func() error) error {
	for start := time.Now(); ; time.Sleep(loadingPause) {
		if err := ask(); !errors.Is(err, missing) || time.Since(start) > loadingPatience {
			return err
		}
	}
}
