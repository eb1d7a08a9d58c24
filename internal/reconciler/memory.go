package reconciler

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// memory books the kernel memory of the tables of the node. The kernel charges it to the cgroup of the agent, so without a
// budget the tables of one tenant could end the agent. While all tables fit the budget, each pod gets its tables.
// When they do not, each namespace has the same share, as far as it wants it (max-min fairness): a namespace within its share
// always gets its tables, and the pods of a namespace beyond it get a table that isolates them and allows nothing.
//
// The pods of the larger namespaces give their memory back a moment after others have been admitted. Until then the sum may
// exceed the budget, by the reserve at most.
type memory struct {
	Budget

	mu         sync.Mutex
	total      int
	pods       map[cache.PodID]int
	namespaces map[string]int
	refused    map[cache.PodID]struct{} // pods whose table waits for memory

	bytes, refusals atomic.Int64 // total, and pods in refused
}

// Budget is the kernel memory of tables, in bytes.
type Budget struct {
	Node int // of all tables
	Pod  int // of each table
}

// BudgetOf returns the budget that the limits set.
func BudgetOf(l *policy.Limits) Budget {
	return Budget{Node: l.NodeMemory << 20, Pod: l.PodMemory << 20}
}

// The limits of --limit that set the budget.
const (
	nodeMemory = "node-memory"
	podMemory  = "pod-memory"
)

// MemoryReserve is the kernel memory beyond the budget that tables may take until other tables have become smaller.
const MemoryReserve = 64 << 20

func newMemory(b Budget) *memory {
	return &memory{Budget: b, pods: map[cache.PodID]int{}, namespaces: map[string]int{}, refused: map[cache.PodID]struct{}{}}
}

// admit books the table of a pod in the place of its last one, or returns the name of the limit that it exceeds: then the pod
// must get a smaller table, which book takes. It returns the pods that must be looked at again, as they must make room or may
// find room now.
func (m *memory) admit(pod cache.PodID, bytes int) (exceeds string, again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes > m.Pod {
		m.refuse(pod, false)
		return podMemory, nil
	}
	before := m.pods[pod]
	total, used := m.total-before+bytes, m.namespaces[pod.Namespace]-before+bytes
	share := m.Node
	if total > m.Node {
		share = m.share(pod.Namespace, used)
	}
	if used > share {
		m.refuse(pod, true)
		return nodeMemory, nil
	}
	if total > m.Node+MemoryReserve && bytes > before {
		m.refuse(pod, true)
		return nodeMemory, m.beyond(share)
	}
	m.refuse(pod, false)
	m.set(pod, bytes)
	if total > m.Node {
		return "", m.beyond(share)
	}
	return "", m.retry(before > bytes)
}

// refuse notes whether a pod waits for memory.
func (m *memory) refuse(pod cache.PodID, waits bool) {
	if waits {
		m.refused[pod] = struct{}{}
	} else {
		delete(m.refused, pod)
	}
	m.refusals.Store(int64(len(m.refused)))
}

// book books the table of a pod without a question: a table that isolates the pod, or none.
func (m *memory) book(pod cache.PodID, bytes int) (again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shrinks := bytes < m.pods[pod]
	m.set(pod, bytes)
	return m.retry(shrinks)
}

// forget takes a pod out of the books.
func (m *memory) forget(pod cache.PodID) (again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse(pod, false)
	shrinks := m.pods[pod] > 0
	m.set(pod, 0)
	return m.retry(shrinks)
}

func (m *memory) set(pod cache.PodID, bytes int) {
	n := bytes - m.pods[pod]
	m.total += n
	m.bytes.Store(int64(m.total))
	if m.namespaces[pod.Namespace] += n; m.namespaces[pod.Namespace] == 0 {
		delete(m.namespaces, pod.Namespace)
	}
	if m.pods[pod] = bytes; bytes == 0 {
		delete(m.pods, pod)
	}
}

// share returns the largest amount that every namespace may use, while a namespace wants so much.
func (m *memory) share(namespace string, wanted int) int {
	amounts := []int{wanted}
	for name, used := range m.namespaces {
		if name != namespace {
			amounts = append(amounts, used)
		}
	}
	slices.Sort(amounts)
	left := m.Node
	for i, amount := range amounts {
		share := left / (len(amounts) - i)
		if amount > share {
			return share
		}
		left -= amount
	}
	return m.Node
}

// beyond returns the pods of namespaces that use more than the share, those with the largest tables first.
func (m *memory) beyond(share int) (pods []cache.PodID) {
	for pod := range m.pods {
		if m.namespaces[pod.Namespace] > share {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b cache.PodID) int { return cmp.Compare(m.pods[b], m.pods[a]) })
	return pods
}

// retry returns the pods that were refused, once memory is free again.
func (m *memory) retry(isFree bool) (pods []cache.PodID) {
	if !isFree || m.total > m.Node {
		return nil
	}
	for pod := range m.refused {
		pods = append(pods, pod)
	}
	return pods
}
