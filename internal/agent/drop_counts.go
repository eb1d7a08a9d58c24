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
type dropMetrics struct {
	liveSeries
	// closed has the readings of closed tables, those of policies too: it needs to know which pods exist. liveSeries.mu guards it.
	closed map[cache.Key]closedReadings
}

// closedReadings are the readings of a table that is not open now.
type closedReadings struct {
	netns string // path of the network namespace
	readings
}

// newDropMetrics registers the metric.
func newDropMetrics(m *metrics) *dropMetrics {
	return &dropMetrics{closed: map[cache.Key]closedReadings{}, liveSeries: newLiveSeries("pod", m.counter("pod_dropped_packets_total",
		"Packets that the tables of a pod dropped on its isolated interfaces, or would have dropped without audit mode (audited). "+
			"A pod without such packets has no series.", "namespace", "pod", "direction", "verdict"))}
}

// keep keeps the readings of a table that is closed, until it is opened again or its pod is deleted.
func (d *dropMetrics) keep(pod cache.Key, netns string, r readings) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.live[pod]; ok && len(r.drops.rules)+len(r.policies.rules) > 0 {
		d.closed[pod] = closedReadings{netns, r}
	}
}

// resume returns the readings of the table that was closed in the network namespace. They are zero for another table.
func (d *dropMetrics) resume(pod cache.Key, netns string) readings {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.closed[pod]
	delete(d.closed, pod)
	if last.netns != netns {
		return readings{}
	}
	return last.readings
}

// forget removes the series of a deleted pod, and its readings.
func (d *dropMetrics) forget(pod cache.Key) {
	d.liveSeries.forget(pod)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.closed, pod)
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
