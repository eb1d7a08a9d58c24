package reconciler

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// memory books the kernel memory of the tables of the node. The kernel charges it to the cgroup of the agent, so
// without a budget the tables of a single tenant could end the agent. While all tables fit the budget, each pod gets
// its tables. When they do not, each namespace has the same share, as far as it wants it (max-min fairness). A
// namespace within its share always gets its tables. The pods of a namespace beyond the share get a table that isolates
// them and allows nothing. For example, with a budget of 90 MB:
//
//	wanted    10 MB   30 MB   80 MB
//	granted   10 MB   30 MB   50 MB
//
// The pods of the larger namespaces give their memory back a moment after other pods have been admitted. Until then the
// sum may exceed the budget, by the reserve at most.
type memory struct {
	Budget

	mu sync.Mutex
	// mu guards the maps and total. The atomic fields are for metrics.
	total      int                      // bytes of all pods
	pods       map[cache.PodID]int      // bytes of each pod's tables
	namespaces map[string]int           // sum of the bytes of a namespace's pods
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

// Names of the limits that set the budget, see --limit.
const (
	nodeMemory = "node-memory"
	podMemory  = "pod-memory"
)

// MemoryReserve is the kernel memory beyond the budget that tables may take until other tables have become smaller.
const MemoryReserve = 64 << 20

// newMemory returns empty books.
func newMemory(b Budget) *memory {
	return &memory{Budget: b, pods: map[cache.PodID]int{}, namespaces: map[string]int{}, refused: map[cache.PodID]struct{}{}}
}

// admit books the table of a pod in the place of the pod's last table. If the table does not fit, it returns the name
// of the limit that the table exceeds; the pod must then get a smaller table, which book takes. again are pods that
// must be queued: pods that must make room now, or may find room now.
func (m *memory) admit(pod cache.PodID, bytes int) (exceeds string, again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A table beyond the limit of a pod never fits, so the pod does not wait for memory.
	if bytes > m.Pod {
		m.refuse(pod, false)
		return podMemory, nil
	}
	before := m.pods[pod]
	total, used := m.total-before+bytes, m.namespaces[pod.Namespace]-before+bytes
	share := m.Node
	// While the node has room, a namespace may take all of it.
	if total > m.Node {
		share = m.share(pod.Namespace, used)
	}
	if used > share {
		m.refuse(pod, true)
		return nodeMemory, nil
	}
	// The larger namespaces have not made room yet. The pod is refused for now, and they are queued.
	if total > m.Node+MemoryReserve && bytes > before {
		m.refuse(pod, true)
		return nodeMemory, m.beyond(share)
	}
	m.refuse(pod, false)
	m.set(pod, bytes)
	// This pod is within its share, so the namespaces beyond their share must make room.
	if total > m.Node {
		return "", m.beyond(share)
	}
	return "", m.retry(before > bytes)
}

// refuse notes whether a pod waits for memory. The caller holds mu.
func (m *memory) refuse(pod cache.PodID, waits bool) {
	if waits {
		m.refused[pod] = struct{}{}
	} else {
		delete(m.refused, pod)
	}
	m.refusals.Store(int64(len(m.refused)))
}

// book books the table of a pod without a check: a table that isolates the pod, or no table. Such a table must always
// be possible, or the pod would stay open.
func (m *memory) book(pod cache.PodID, bytes int) (again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shrinks := bytes < m.pods[pod]
	m.set(pod, bytes)
	return m.retry(shrinks)
}

// forget removes the booking of a pod that is gone.
func (m *memory) forget(pod cache.PodID) (again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse(pod, false)
	shrinks := m.pods[pod] > 0
	m.set(pod, 0)
	return m.retry(shrinks)
}

// set changes the booking of a pod. A pod or a namespace without bytes has no entry. The caller holds mu.
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

// share returns the largest amount that every namespace may use, while a namespace wants the amount wanted: the level
// to which a budget fills all namespaces evenly. It returns the whole budget if all amounts fit.
func (m *memory) share(namespace string, wanted int) int {
	// From the smallest amount on, each namespace takes its amount, and the rest is divided among the larger
	// namespaces.
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

// beyond returns the pods of namespaces that use more than the share, the largest tables first: then few pods must make
// room.
func (m *memory) beyond(share int) (pods []cache.PodID) {
	for pod := range m.pods {
		if m.namespaces[pod.Namespace] > share {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b cache.PodID) int { return cmp.Compare(m.pods[b], m.pods[a]) })
	return pods
}

// retry returns the pods that wait for memory, if memory has become free and the sum is within the budget.
func (m *memory) retry(isFree bool) (pods []cache.PodID) {
	if !isFree || m.total > m.Node {
		return nil
	}
	for pod := range m.refused {
		pods = append(pods, pod)
	}
	return pods
}
