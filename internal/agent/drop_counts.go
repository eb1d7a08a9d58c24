package agent

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// dropCountsInterval is the maximum age of the counts of dropped packets. A reading costs two short dumps for each isolated
// interface.
var dropCountsInterval = 30 * time.Second

// dropMetrics are the packets that the tables of each pod have dropped. A pod without such packets has no series, and a series
// ends with its pod.
type dropMetrics struct {
	packets *prometheus.CounterVec

	mu   sync.Mutex
	live map[cache.Key]struct{} // local pods of the API server
}

// newDropMetrics registers the metric.
func newDropMetrics(m *metrics) *dropMetrics {
	return &dropMetrics{live: map[cache.Key]struct{}{}, packets: m.counter("pod_dropped_packets_total",
		"Packets that the tables of a pod dropped on its isolated interfaces, or would have dropped without audit mode (audited). "+
			"A pod without such packets has no series.", "namespace", "pod", "direction", "verdict")}
}

// add adds the difference between two readings to the metric, and returns the new reading.
func (d *dropMetrics) add(pod cache.Key, last counted, now []engine.RuleCount) counted {
	next := counted{time.Now(), map[ruleHandle]engine.RuleCount{}}
	for _, c := range now {
		if !c.HasCounter {
			continue
		}
		if packets, _ := next.since(last, c); packets > 0 {
			name, _ := engine.ParseChain(c.Chain)
			d.count(pod, name.Direction.String(), lastVerdict(c), packets)
		}
	}
	return next
}

// count adds packets to the series of a pod, unless the pod is gone.
func (d *dropMetrics) count(pod cache.Key, direction, verdict string, packets float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.live[pod]; ok {
		d.packets.WithLabelValues(pod.Namespace, pod.Name, direction, verdict).Add(packets)
	}
}

// meet starts the count of a local pod.
func (d *dropMetrics) meet(pod cache.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[pod] = struct{}{}
}

// forget removes the series of a pod that is gone.
func (d *dropMetrics) forget(pod cache.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.live, pod)
	d.packets.DeletePartialMatch(prometheus.Labels{"namespace": pod.Namespace, "pod": pod.Name})
}
