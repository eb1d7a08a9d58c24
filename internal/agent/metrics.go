package agent

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
)

// metricsPrefix is the start of the names of all metrics that the agent itself defines.
const metricsPrefix = "multi_networkpolicy_"

// inputSources are the inputs that the agent can lose, as values of the label source.
var inputSources = []string{
	informers.KindPolicy, informers.KindNamespace, informers.KindNAD, informers.KindPod, sandbox.SourceName, sandbox.NRISourceName,
}

// metricDoc describes a metric. A test compares these descriptions with docs/metrics.md.
// labels are in the order of the metric.
type metricDoc struct {
	name, kind, help string
	labels           []string
}

// metrics holds the agent's measurements: the tables (metrics_table.go), the way of each pod from an event to the kernel
// (progress.go), and the state at the time of a scrape (metrics_state.go). The methods are safe for concurrent use.
type metrics struct {
	registry *prometheus.Registry
	docs     []metricDoc

	// Durations in seconds.
	syncs, programming, podStart, applies prometheus.Histogram
	hooks, locks                          prometheus.Histogram
	// Counts. Most of them come from the tables, see engine.Stats.
	batches, messages, bytes               prometheus.Counter
	repairs, restarts, readBacks, failures prometheus.Counter
	seeded, seedFailures                   prometheus.Counter
	refused, outages, hookResults          *prometheus.CounterVec
	down, lastSync, nriState               *prometheus.GaugeVec
	policies                               *policyMetrics
	drops                                  *dropMetrics
	// countPolicies says that the rules of policies have counters (--policy-counters).
	countPolicies bool
}

// newMetrics makes a registry of its own, so that many agents can be in one process.
// The caller serves the registry.
func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	fast := prometheus.ExponentialBuckets(0.0001, 2, 18) // 100 µs to 13 s
	slow := prometheus.ExponentialBuckets(0.05, 2, 14)   // 50 ms to 7 min
	m.syncs = m.histogram("sync_duration_seconds",
		"Time from the event that changed a pod's rules to the kernel's acknowledgment of the rules, including failed tries.", fast)
	m.programming = m.histogram("network_programming_duration_seconds",
		"Time from the change of an object to its enforcement in a pod. The change has the API server's clock, in whole seconds.", slow)
	m.podStart = m.histogram("pod_start_duration_seconds",
		"Time from the creation of a pod's sandbox to the first enforcement in the pod, for sandboxes created while the agent runs. "+
			"With NRI, time from when the network of the pod is ready.", slow)
	m.hooks = m.histogram("pod_hook_duration_seconds",
		"Time that the container runtime waited for the agent before it started a pod (NRI).", fast)
	m.hookResults = m.counter("pod_hooks_total", "Pods that the container runtime asked about before it started them (NRI).", "result")
	// Series with labels are made at the start, so that a rate over the first event is not lost.
	for _, result := range sandbox.HookResults {
		m.hookResults.WithLabelValues(string(result))
	}
	m.applies = m.histogram("apply_duration_seconds", "Time to apply a pod's rules, from plan to acknowledgment.", fast)
	m.locks = m.histogram("cache_lock_duration_seconds",
		"Time that the lock of the cache was held. Meanwhile every event waits.", prometheus.ExponentialBuckets(1e-6, 4, 12)) // 1 µs to 4 s
	m.batches = m.counter("batches_total", "Netlink batches that the kernel acknowledged.").WithLabelValues()
	m.messages = m.counter("batch_messages_total", "Messages in the acknowledged netlink batches.").WithLabelValues()
	m.bytes = m.counter("batch_bytes_total", "Bytes in the acknowledged netlink batches.").WithLabelValues()
	m.refused = m.counter("refused_batches_total", "Failed attempts to update a pod's table, by errno.", "errno")
	m.failures = m.counter("sync_failures_total", "Failed syncs of pods. The agent retries them.").WithLabelValues()
	m.repairs = m.counter("repairs_total", "Tables that another process had changed and the agent repaired.").WithLabelValues()
	m.restarts = m.counter("batch_restarts_total",
		"Batches that the agent made again, because another process changed a table in the namespace (ERESTART).").WithLabelValues()
	m.seeded = m.counter("connections_seeded_total",
		"Connection tracking entries that the agent made for connections from before a pod's first policy, "+
			"or from before the loss of all entries.").WithLabelValues()
	m.seedFailures = m.counter("connection_seed_failures_total",
		"Times that the agent could not make connection tracking entries for all connections of a pod.").WithLabelValues()
	m.readBacks = m.counter("read_backs_total", "Tables read back from the kernel.").WithLabelValues()
	m.lastSync = m.gauge("last_sync_timestamp_seconds", "Time of the last acknowledgment of a pod's rules by the kernel.")
	m.outages = m.counter("watch_outages_total",
		"Losses of an input: a kind of objects of the API server, the sandboxes of the runtime, or its NRI.", "source")
	m.down = m.gauge("watch_down", "1 while an input is lost. Enforced policies stay in force.", "source")
	m.nriState = m.gauge("nri_state",
		"1 for the current state of the connection to the container runtime's NRI. "+
			"Unless it is connected, pods start before their rules are in force.", "state")
	for _, state := range sandbox.NRIStates {
		m.nriState.WithLabelValues(string(state)).Set(0)
	}
	m.policies, m.drops = newPolicyMetrics(m), newDropMetrics(m)
	m.gauge("build_info", "Always 1. The labels have the version of the agent.", "version", "go_version").WithLabelValues(version, runtime.Version()).Set(1)
	for _, source := range inputSources {
		m.outages.WithLabelValues(source)
		m.down.WithLabelValues(source).Set(0)
	}
	m.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// document notes a metric for the test of the documentation.
func (m *metrics) document(name, kind, help string, labels []string) {
	m.docs = append(m.docs, metricDoc{metricsPrefix + name, kind, help, labels})
}

// counter registers a counter. Without labels, WithLabelValues() returns its only series.
// It panics if the name is registered already.
func (m *metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	m.document(name, "counter", help, labels)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

// gauge registers a gauge, like counter.
func (m *metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	m.document(name, "gauge", help, labels)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: metricsPrefix + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

// histogram registers a histogram without labels. buckets are upper bounds.
func (m *metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	m.document(name, "histogram", help, nil)
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: metricsPrefix + name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

// Outage notes the loss or the return of an input. It implements informers.Observer and sandbox.NRIObserver.
// down is true for a loss.
func (m *metrics) Outage(source string, down bool) {
	if !down {
		m.down.WithLabelValues(source).Set(0)
		return
	}
	m.down.WithLabelValues(source).Set(1)
	m.outages.WithLabelValues(source).Inc()
}

// Hooked notes a pod that the runtime asked about. It implements sandbox.NRIObserver.
func (m *metrics) Hooked(result sandbox.HookResult, took time.Duration) {
	m.hookResults.WithLabelValues(string(result)).Inc()
	m.hooks.Observe(took.Seconds())
}

// NRIState implements sandbox.NRIObserver. Exactly a single state has the value 1.
func (m *metrics) NRIState(now sandbox.NRIState) {
	for _, state := range sandbox.NRIStates {
		value := 0.0
		if state == now {
			value = 1
		}
		m.nriState.WithLabelValues(string(state)).Set(value)
	}
}

// lockHeld notes how long the lock of the cache was held. The cache calls it after the lock is free.
func (m *metrics) lockHeld(d time.Duration) { m.locks.Observe(d.Seconds()) }

// synced notes that the kernel acknowledged the tables that follow from a change. A time of the change that is zero is
// unknown, and measures nothing.
func (m *metrics) synced(c change, now time.Time) {
	m.lastSync.WithLabelValues().Set(float64(now.UnixMilli()) / 1000)
	if !c.seen.IsZero() {
		m.syncs.Observe(now.Sub(c.seen).Seconds())
	}
	if !c.made.IsZero() {
		// The clock of the API server may be ahead of the node's.
		m.programming.Observe(max(0, now.Sub(c.made).Seconds()))
	}
}
