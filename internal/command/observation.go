package command

import (
	"context"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// observation is how the agent is looked at from outside: metrics and health, and where they answer.
type observation struct {
	metrics   *metrics
	progress  *progress
	health    *health
	endpoints []*endpoint
}

// observe opens the addresses.
func (o *agentOptions) observe() (*observation, error) {
	m := newMetrics(o.version)
	p := newProgress(m)
	h := &health{progress: p}
	endpoints, err := o.endpoints.listen(m, h)
	return &observation{m, p, h, endpoints}, err
}

// reconciler is one that is observed.
func (o *observation) reconciler(state *cache.Cache, open openTable) *reconciler {
	o.metrics.watch(state, o.progress)
	r := newReconciler(state, o.metrics.meter(open))
	r.observer = o.progress
	return r
}

// background is what runs beside the pipeline.
func (o *observation) background() []func(context.Context) {
	all := []func(context.Context){o.health.end}
	for _, e := range o.endpoints {
		all = append(all, e.run)
	}
	return all
}
