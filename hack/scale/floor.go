package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// tables returns the tables that the local pods should have now.
func (n *node) tables(local int) (list []engine.Tables, err error) {
	c := cluster{local: local, namespaces: 1}
	for i := range local {
		p := c.pod(i, web)
		t, ok := n.cache.Plan(cache.PodID{Key: cache.Key{Namespace: p.Namespace, Name: p.Name}, UID: p.UID})
		if !ok {
			return nil, fmt.Errorf("pod %s has no target", p.Name)
		}
		list = append(list, t.Tables)
	}
	return list, nil
}

// floor measures the change from the kept tables to the tables of now, in network namespaces of their own: a batch for each pod, with
// as many workers as cores, and nothing before the engine.
func (n *node) floor(local int) (took report.Samples, err error) {
	now, err := n.tables(local)
	if err != nil {
		return nil, err
	}
	var open []*engine.Namespace
	defer func() {
		for _, x := range open {
			err = errors.Join(err, x.Close())
		}
	}()
	for i := range local {
		host, err := n.network.Bare("floor-" + strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		x, err := engine.OpenNamespace("floor", host.NetNS(), engine.Options{Own: n.features.Owner})
		if err != nil {
			return nil, err
		}
		open = append(open, x)
	}
	for range bursts {
		if err := applyAll(open, n.kept); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := applyAll(open, now); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// applyAll applies the tables, each to its network namespace.
func applyAll(open []*engine.Namespace, tables []engine.Tables) error {
	work := make(chan int)
	errs := make([]error, runtime.GOMAXPROCS(0))
	var running sync.WaitGroup
	for w := range errs {
		running.Go(func() {
			for i := range work {
				errs[w] = errors.Join(errs[w], open[i].Apply(context.Background(), tables[i]))
			}
		})
	}
	for i := range open {
		work <- i
	}
	close(work)
	running.Wait()
	return errors.Join(errs...)
}
