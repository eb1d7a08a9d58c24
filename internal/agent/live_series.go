package agent

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// liveSeries are metrics with series for objects of the API server. The series of an object end with it.
type liveSeries struct {
	kind     string // label of the object's name, beside the label namespace
	counters []*prometheus.CounterVec

	mu   sync.Mutex
	live map[cache.Key]struct{} // a table can have the counters of a deleted object for a while
}

func newLiveSeries(kind string, counters ...*prometheus.CounterVec) liveSeries {
	return liveSeries{kind: kind, counters: counters, live: map[cache.Key]struct{}{}}
}

// count adds a value to the series of an object in each counter, unless the object is deleted. labels are those behind the labels of
// the object.
func (s *liveSeries) count(key cache.Key, labels []string, values ...float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Without this check, a late reading would start the series of a deleted object again.
	if _, ok := s.live[key]; !ok {
		return
	}
	labels = append([]string{key.Namespace, key.Name}, labels...)
	for i, c := range s.counters {
		c.WithLabelValues(labels...).Add(values[i])
	}
}

// meet starts the count of an object that the API server has. It may be called again for the same object.
func (s *liveSeries) meet(key cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[key] = struct{}{}
}

// forget removes the series of a deleted object. It may be called for an object without series.
func (s *liveSeries) forget(key cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, key)
	for _, c := range s.counters {
		c.DeletePartialMatch(prometheus.Labels{"namespace": key.Namespace, s.kind: key.Name})
	}
}
