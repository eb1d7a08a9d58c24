package agent

import (
	"context"
	"net/http"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// observation is the outside view of an agent: metrics, health, and the listeners that serve them.
type observation struct {
	metrics   *metrics
	progress  *progress
	health    *health
	endpoints []*endpoint
	// Handlers for clients on the node. They are set before the endpoints run.
	enforcement, drops http.Handler
}

// observe makes the metrics and opens the listeners, so that a bad address is known before anything else happens. The
// caller closes the endpoints.
func observe(config Config) (*observation, error) {
	m := newMetrics(config.Version)
	m.countPolicies = config.Cache.PolicyCounters
	p := newProgress(m)
	h := &health{progress: p}
	o := &observation{metrics: m, progress: p, health: h}
	onNode := map[string]http.HandlerFunc{
		enforcement.Path: func(w http.ResponseWriter, r *http.Request) { o.enforcement.ServeHTTP(w, r) },
		drops.Path:       func(w http.ResponseWriter, r *http.Request) { o.drops.ServeHTTP(w, r) },
	}
	var err error
	o.endpoints, err = listen(config, metricsHandler(m, config.Profiles), h.handler(onNode))
	return o, err
}

// reconciler returns a reconciler whose tables and pods are measured, and recorded for the answer to which policies are enforced.
// The packets that the tables report go to the log.
func (o *observation) reconciler(config Config, state *cache.Cache, open reconciler.OpenTable, log *dropLog) *reconciler.Reconciler {
	o.drops = &log.hub
	record := enforcement.NewRecord(func(pod cache.PodID) bool { _, known := state.IsSelected(pod); return known })
	o.enforcement = enforcement.NewHandler(enforcement.Handler{
		Node: config.Cache.Node, Version: config.Version, Cache: state, Record: record,
		WaitsSince: o.progress.waitsSince, NotReady: o.health.whyNotReady,
	})
	return reconciler.New(state, log.listen(o.metrics.meter(open)), reconciler.BudgetOf(state.Limits()), observers{o.progress, record})
}

// observers is a reconciler.Observer that notifies each of the observers.
type observers []reconciler.Observer

// Queued implements reconciler.Observer.
func (o observers) Queued(pods []cache.PodID, since time.Time) {
	for _, each := range o {
		each.Queued(pods, since)
	}
}

// Started implements reconciler.Observer.
func (o observers) Started(pod cache.PodID) {
	for _, each := range o {
		each.Started(pod)
	}
}

// Applied implements reconciler.Observer.
func (o observers) Applied(target cache.Target) {
	for _, each := range o {
		each.Applied(target)
	}
}

// Finished implements reconciler.Observer.
func (o observers) Finished(pod cache.PodID, err error) {
	for _, each := range o {
		each.Finished(pod, err)
	}
}

// background returns the functions that run beside the pipeline: the listeners and the end of health.
func (o *observation) background() []func(context.Context) {
	all := []func(context.Context){o.health.end}
	for _, e := range o.endpoints {
		all = append(all, e.run)
	}
	return all
}
