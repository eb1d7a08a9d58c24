package agent

import (
	"context"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// observation is the outside view of an agent: metrics, health, and the listeners that serve them.
type observation struct {
	metrics   *metrics
	progress  *progress
	health    *health
	endpoints []*endpoint
}

// observe makes the metrics and opens the listeners, so that a bad address is known before anything else happens. The
// caller closes the endpoints.
func observe(config Config) (*observation, error) {
	m := newMetrics(config.Version)
	m.countPolicies = config.Cache.PolicyCounters
	p := newProgress(m)
	h := &health{progress: p}
	endpoints, err := listen(config, m, h)
	return &observation{m, p, h, endpoints}, err
}

// reconciler returns a reconciler whose tables and pods are measured, and whose reported packets go to the log.
func (o *observation) reconciler(state *cache.Cache, open reconciler.OpenTable, log *dropLog) *reconciler.Reconciler {
	return reconciler.New(state, log.listen(o.metrics.meter(open)), reconciler.BudgetOf(state.Limits()), o.progress)
}

// background returns the functions that run beside the pipeline: the listeners and the end of health.
func (o *observation) background() []func(context.Context) {
	all := []func(context.Context){o.health.end}
	for _, e := range o.endpoints {
		all = append(all, e.run)
	}
	return all
}
