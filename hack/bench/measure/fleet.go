package main

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// fleet holds the network namespaces of the local pods. Ways may share a fleet if each restores the tables.
type fleet struct {
	lab   *lab.Lab
	hosts []*lab.Host
	// at is the state of the tables in the kernel. The way that changes them keeps it up to date.
	at state
}

// newFleet creates the namespaces, with nothing in them but the loopback interface.
func newFleet(pods int) (*fleet, error) {
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	f := &fleet{lab: l}
	for range pods {
		h, err := l.Bare("pod")
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		f.hosts = append(f.hosts, h)
	}
	return f, nil
}

func (f *fleet) close() error { return f.lab.Close() }

// each calls do with each number below n, on as many threads as cores, like the workers of the agent.
// It returns the errors of all threads. A thread stops at its first error; the other threads go on.
func each(n int, do func(i int) error) error {
	if n == 1 {
		return do(0)
	}
	var next atomic.Int64
	var running sync.WaitGroup
	errs := make([]error, runtime.GOMAXPROCS(0))
	for w := range errs {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[w] == nil; i = int(next.Add(1)) - 1 {
				errs[w] = do(i)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
