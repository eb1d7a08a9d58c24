package agent

import (
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// dropCountsInterval is the shortest time between two readings of the counts of dropped packets. A reading costs two short dumps for
// each isolated interface.
var dropCountsInterval = 30 * time.Second

// dropMetrics are the packets that the tables of each pod have dropped. A pod without such packets has no series.
type dropMetrics struct{ liveSeries }

// newDropMetrics registers the metric.
func newDropMetrics(m *metrics) *dropMetrics {
	return &dropMetrics{newLiveSeries("pod", m.counter("pod_dropped_packets_total",
		"Packets that the tables of a pod dropped on its isolated interfaces, or would have dropped without audit mode (audited). "+
			"A pod without such packets has no series.", "namespace", "pod", "direction", "verdict"))}
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
			d.count(pod, []string{name.Direction.String(), lastVerdict(c)}, packets)
		}
	}
	return next
}
