package command

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// snapshot is what is there at the time of a scrape.
type snapshot struct {
	cache.Stats
	backlog
}

// reading is one sample of a snapshot.
type reading struct {
	desc   *prometheus.Desc
	labels []string
	value  func(snapshot) float64
}

// stateCollector reads the cache and the progress at each scrape, once for all metrics.
type stateCollector struct {
	metrics  *metrics
	state    *cache.Cache
	progress *progress
	readings []reading
}

func newStateCollector(m *metrics, state *cache.Cache, p *progress) *stateCollector {
	c := &stateCollector{metrics: m, state: state, progress: p}
	c.one("queue_depth", "Pods whose objects have changed and whose rules have not followed yet.", func(s snapshot) float64 { return float64(s.depth) })
	c.one("queue_age_seconds", "How long the oldest change of these waits.", func(s snapshot) float64 { return s.age.Seconds() })
	c.one("pods_selected", "Local pods that a policy selects.", count(func(s snapshot) int { return s.SelectedPods }))
	c.by("pods_not_enforced", "Local pods in which policies are not, or may not be, as they should be.", "reason", []labeled{
		{"no_sandbox", func(s snapshot) int { return s.WithoutSandbox }},
		{"unreadable_status", func(s snapshot) int { return s.UnreadableStatus }},
		{"namespace_gone", func(s snapshot) int { return s.failing[reasonGone] }},
		{"kernel_error", func(s snapshot) int { return s.failing[reasonKernel] }},
		{"unsupported_plugin", func(s snapshot) int { return s.Unsupported }},
	})
	c.by("policies", "Policies: all of them, those that select a local pod, those with a field that cannot be understood.", "state", []labeled{
		{"all", func(s snapshot) int { return s.Policies }},
		{"active", func(s snapshot) int { return s.ActivePolicies }},
		{"invalid", func(s snapshot) int { return s.InvalidPolicies }},
	})
	c.one("peer_groups", "Peer groups that rules of local pods use.", count(func(s snapshot) int { return s.Groups }))
	c.one("peer_group_elements", "Ranges of addresses, and endpoints, in these groups.", count(func(s snapshot) int { return s.Members }))
	c.by("cache_objects", "What the cache holds.", "kind", []labeled{
		{"pod", func(s snapshot) int { return s.Pods }},
		{"local_pod", func(s snapshot) int { return s.LocalPods }},
		{"namespace", func(s snapshot) int { return s.Namespaces }},
		{"network", func(s snapshot) int { return s.Networks }},
		{"sandbox", func(s snapshot) int { return s.Sandboxes }},
		{"port_list", func(s snapshot) int { return s.PortLists }},
	})
	return c
}

// labeled is the sample with one value of a label.
type labeled struct {
	label string
	value func(snapshot) int
}

func count(value func(snapshot) int) func(snapshot) float64 {
	return func(s snapshot) float64 { return float64(value(s)) }
}

func (c *stateCollector) one(name, help string, value func(snapshot) float64) {
	c.metrics.document(name, "gauge", help, nil)
	c.readings = append(c.readings, reading{prometheus.NewDesc(metricsPrefix+name, help, nil, nil), nil, value})
}

func (c *stateCollector) by(name, help, label string, samples []labeled) {
	c.metrics.document(name, "gauge", help, []string{label})
	desc := prometheus.NewDesc(metricsPrefix+name, help, []string{label}, nil)
	for _, s := range samples {
		c.readings = append(c.readings, reading{desc, []string{s.label}, count(s.value)})
	}
}

// Describe is prometheus.Collector's.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, r := range c.readings {
		out <- r.desc
	}
}

// Collect is prometheus.Collector's.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	s := snapshot{c.state.Stats(), c.progress.backlog()}
	for _, r := range c.readings {
		out <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, r.value(s), r.labels...)
	}
}
