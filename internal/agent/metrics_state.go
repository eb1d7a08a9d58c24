package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// sources are read at the time of a scrape. No read takes a lock that enforcement needs: the counts are atomic.
// They are set once, before the first scrape.
type sources struct {
	state      *cache.Cache           // counts of objects
	progress   *progress              // the queue
	reconciler *reconciler.Reconciler // the work of the workers
	reports    *informers.Reporter    // nil, as all below: nothing is reported
	events     *informers.Events
	traces     *traces
	drops      *dropLog
}

// snapshot holds the counts of all sources at the time of a scrape.
type snapshot struct {
	cache.Stats
	backlog
	work                    reconciler.Stats
	reports, events, traces uint64 // numbers of suppressed reports, Events and traces
	drops, deafness         uint64 // numbers of reported packets that were not logged, and of failures to receive them
}

// read returns a snapshot.
// It can be called at any time, from any goroutine.
func (s *sources) read() snapshot {
	now := snapshot{Stats: s.state.Stats(), backlog: s.progress.backlog(), work: s.reconciler.Stats()}
	if s.reports != nil {
		now.reports, now.events, now.traces = s.reports.Suppressed(), s.events.Dropped(), s.traces.refused.Load()
		now.drops, now.deafness = s.drops.budget.Refused(), s.drops.failures.Load()
	}
	return now
}

// reading describes a series whose value comes from the snapshot.
type reading struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType // gauge or counter
	labels []string             // values of the labels, in the order of desc
	value  func(snapshot) float64
}

// stateCollector reads the sources at each scrape, once for all metrics, so that the values of a scrape belong
// together.
type stateCollector struct {
	metrics  *metrics
	sources  sources
	readings []reading
}

// typeNames are the kinds of metrics as docs/metrics.md names them.
var typeNames = map[prometheus.ValueType]string{prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}

// watch registers the metrics that are read at the time of a scrape.
func (m *metrics) watch(s sources) {
	c := &stateCollector{metrics: m, sources: s}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	c.one(gauge, "queue_depth", "Pods with changed objects whose rules are not up to date yet.",
		func(s snapshot) float64 { return float64(s.depth) })
	c.one(gauge, "queue_age_seconds", "Age of the oldest change in the queue.", func(s snapshot) float64 { return s.age.Seconds() })
	c.one(gauge, "pods_throttled", "Pods that wait because they used more than their share of the workers.",
		func(s snapshot) float64 { return float64(s.work.Throttled) })
	c.one(counter, "throttled_pods_total", "Times that a pod had to wait for its share of the workers.",
		func(s snapshot) float64 { return float64(s.work.ThrottledTotal) })
	c.one(counter, "closed_starts_total", "Pods with large tables that started closed, so that other pods did not wait for these tables.",
		func(s snapshot) float64 { return float64(s.work.ClosedStarts) })
	c.one(gauge, "table_memory_bytes", "Estimated kernel memory of the tables of all pods. --limit node-memory bounds it.",
		func(s snapshot) float64 { return float64(s.work.Memory) })
	c.one(gauge, "pods_selected", "Local pods that a policy selects.", func(s snapshot) float64 { return float64(s.SelectedPods) })
	// A pod may be counted for several reasons, so the sum may exceed the number of pods.
	c.by(gauge, "pods_not_enforced", "Local pods whose policies are not enforced, or may not be enforced.", "reason", []labeled{
		{cache.GapNoSandbox, func(s snapshot) int64 { return s.WithoutSandbox }},
		{cache.GapUnreadableStatus, func(s snapshot) int64 { return s.UnreadableStatus }},
		{reasonGone, func(s snapshot) int64 { return s.failing[reasonGone] }},
		{reasonKernel, func(s snapshot) int64 { return s.failing[reasonKernel] }},
		{cache.GapUnsupportedPlugin, func(s snapshot) int64 { return s.Unsupported }},
		{cache.GapNotEnforceable, func(s snapshot) int64 { return s.NotEnforceable }},
	})
	c.by(gauge, "pods_with_bridge", "Selected local pods with a bridge, such as virtual machines, by enforcement in the bridge: "+
		"policies are enforced, all IP packets are dropped, or all packets pass.", "enforcement", []labeled{
		{"policies", func(s snapshot) int64 { return s.BridgesEnforced }},
		{"drop", func(s snapshot) int64 { return s.BridgesDropped }},
		{"none", func(s snapshot) int64 { return s.BridgesOpen }},
	})
	c.one(gauge, "unknown_sandboxes", "Sandboxes of the container runtime whose pod is not a pod of this node, according to the API server.",
		func(s snapshot) float64 { return float64(s.UnknownSandboxes) })
	c.by(gauge, "limits_exceeded", "Objects that exceed a limit, see --limit. The part over the limit allows nothing.", "object", []labeled{
		{"policy", func(s snapshot) int64 { return s.LimitedPolicies }},
		{"pod", func(s snapshot) int64 { return s.LimitedPods }},
		{"namespace", func(s snapshot) int64 { return s.LimitedNamespaces }},
	})
	c.by(gauge, "policies", "Policies: all, active (select a local pod), invalid (a field is invalid or exceeds a limit) and audited (in audit mode).", "state", []labeled{
		{"all", func(s snapshot) int64 { return s.Policies }},
		{"active", func(s snapshot) int64 { return s.ActivePolicies }},
		{"invalid", func(s snapshot) int64 { return s.InvalidPolicies }},
		{"audited", func(s snapshot) int64 { return s.AuditedPolicies }},
	})
	c.one(gauge, "peer_groups", "Peer groups that rules of local pods use.", func(s snapshot) float64 { return float64(s.Groups) })
	c.one(gauge, "peer_group_elements", "Ranges of addresses, and endpoints, in the peer groups.", func(s snapshot) float64 { return float64(s.Members) })
	c.by(gauge, "cache_objects", "Objects in the cache.", "kind", []labeled{
		{"pod", func(s snapshot) int64 { return s.Pods }},
		{"local_pod", func(s snapshot) int64 { return s.LocalPods }},
		{"namespace", func(s snapshot) int64 { return s.Namespaces }},
		{"network", func(s snapshot) int64 { return s.Networks }},
		{"sandbox", func(s snapshot) int64 { return s.Sandboxes }},
		{"port_list", func(s snapshot) int64 { return s.PortLists }},
	})
	c.one(counter, "drop_log_failures_total", "Failed tries to receive the packets that tables of a pod report.",
		func(s snapshot) float64 { return float64(s.deafness) })
	c.by(counter, "suppressed_total", "Suppressed log lines, reports, Events, traces and lines about dropped packets: their object or its namespace was over budget.", "kind", []labeled{
		{"log_line", func(s snapshot) int64 { return int64(s.work.SuppressedLines) }},
		{"report", func(s snapshot) int64 { return int64(s.reports) }},
		{"event", func(s snapshot) int64 { return int64(s.events) }},
		{"trace", func(s snapshot) int64 { return int64(s.traces) }},
		{"drop", func(s snapshot) int64 { return int64(s.drops) }},
	})
	m.registry.MustRegister(c)
}

// labeled is a series of a metric with a single label: the value of the label, and the value of the series.
type labeled struct {
	label string
	value func(snapshot) int64
}

// one adds a metric without labels.
func (c *stateCollector) one(kind prometheus.ValueType, name, help string, value func(snapshot) float64) {
	c.metrics.document(name, typeNames[kind], help, nil)
	c.readings = append(c.readings, reading{prometheus.NewDesc(metricsPrefix+name, help, nil, nil), kind, nil, value})
}

// by adds a metric with a series for each value of a label.
// The values of the label are known in advance, so each series exists from the first scrape on.
func (c *stateCollector) by(kind prometheus.ValueType, name, help, label string, samples []labeled) {
	c.metrics.document(name, typeNames[kind], help, []string{label})
	desc := prometheus.NewDesc(metricsPrefix+name, help, []string{label}, nil)
	for _, s := range samples {
		c.readings = append(c.readings, reading{desc, kind, []string{s.label}, func(now snapshot) float64 { return float64(s.value(now)) }})
	}
}

// Describe implements prometheus.Collector.
// The list is fixed after watch, so scrapes may run concurrently.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, r := range c.readings {
		out <- r.desc
	}
}

// Collect implements prometheus.Collector.
// All values come from one snapshot.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	s := c.sources.read()
	for _, r := range c.readings {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.value(s), r.labels...)
	}
}
