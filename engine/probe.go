package engine

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Features are what not every kernel has.
type Features struct {
	// Owner: a table can belong to a socket and outlive it (NFT_TABLE_F_OWNER and _PERSIST, kernel 6.9). See Options.Own.
	Owner bool
}

// Probe asks the kernel, in a network namespace of its own that is gone afterwards. It needs CAP_SYS_ADMIN and
// CAP_NET_ADMIN, as Open does. An error also means that nothing else will work: no nf_tables, or no right to it.
func Probe() (Features, error) {
	type result struct {
		features Features
		err      error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread that entered the namespace ends with the goroutine.
		runtime.LockOSThread()
		f, err := probeHere()
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		return r.features, fmt.Errorf("probe nf_tables: %w", r.err)
	}
	return r.features, nil
}

func probeHere() (Features, error) {
	var f Features
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return f, fmt.Errorf("make a network namespace: %w", err)
	}
	netns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return f, err
	}
	defer netns.Close()
	t, err := dial(netns)
	if err != nil {
		return f, err
	}
	e := &Engine{pod: "probe", transport: t}
	table := NewRuleset(nil, []*Chain{{Name: "probe"}})
	if err = e.apply(table); err == nil {
		e.flags = owned
		err = e.apply(table)
		f.Owner = err == nil
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = nil
		}
	}
	return f, errors.Join(err, t.close())
}
