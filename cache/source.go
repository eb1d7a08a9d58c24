package cache

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// podSource is what a pod's interfaces are read from, as it is written.
type podSource struct {
	field    string // that status is of
	status   string // says what Multus has attached
	networks string // says what Multus is asked to attach; empty where that means nothing
}

// reading is what a source says.
type reading struct {
	source   podSource
	same     bool // as was read before: the rest but the problems is not filled in
	known    bool // it says something
	expected bool // it says what is asked for, not what is there
	broken   bool // there is a network status that cannot be read
	entries  []statusEntry
	problems problems
}

// sourceOf returns a pod's source. What a pod asks for only matters where rules are made for it.
func sourceOf(obj *corev1.Pod, expects bool) podSource {
	var s podSource
	s.field, s.status = statusOf(obj)
	if expects {
		s.networks = obj.Annotations[networksAnnotation]
	}
	return s
}

// readSource reads a network status and, where there is none or it cannot be read, what the pod asks for: a pod's first
// packet may come before its network status does. p is what is known of the pod, and may be nil.
func readSource(p *pod, namespace string, s podSource) reading {
	if p != nil && p.source == s {
		return reading{source: s, same: true, problems: p.problems}
	}
	r := reading{source: s}
	r.entries, r.problems, r.known = parseStatus(namespace, s.field, s.status)
	absent := strings.TrimSpace(s.status) == ""
	if r.known && !absent {
		return r
	}
	r.expected, r.broken = true, !r.known
	if s.networks == "" {
		return r
	}
	entries, ps, ok := expectedEntries(namespace, s.networks)
	r.entries, r.known = entries, ok
	r.problems = append(r.problems, ps...)
	return r
}
