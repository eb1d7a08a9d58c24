package reconciler

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// memory books the kernel memory of the tables of the node. The kernel charges it to the cgroup of the agent, so without a
// budget the tables of one tenant could end the agent. While all tables fit the budget, everybody gets what is asked for.
// When they do not, each namespace has the same share, as far as it wants it (max-min fairness): a namespace within its share
// always gets what it asks for, and the pods of a namespace beyond it get a table that isolates them and allows nothing.
type memory struct {
	budget int // bytes

	mu         sync.Mutex
	total      int
	pods       map[cache.PodID]int
	namespaces map[string]int
	refused    map[cache.PodID]struct{} // pods whose whole table was not admitted

	bytes, refusals atomic.Int64 // total, and pods in refused
}

func newMemory(budget int) *memory {
	return &memory{budget: budget, pods: map[cache.PodID]int{}, namespaces: map[string]int{}, refused: map[cache.PodID]struct{}{}}
}

// admit books the table of a pod in the place of its last one, or refuses it: then the pod must get a smaller table, which
// book takes. It returns the pods that must be looked at again, as others must make room or may find room now.
func (m *memory) admit(pod cache.PodID, bytes int) (ok bool, again []cache.PodID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.pods[pod]
	total, used := m.total-before+bytes, m.namespaces[pod.Namespace]-before+bytes
	share := m.budget
	if total > m.budget {
		share = m.share(pod.Namespace, used)
	}
	if used > share {
		m.refused[pod] = struct{}{}
		m.refusals.Store(int64(len(m.refused)))
		return false, nil
	}
	delete(m.refused, pod)
	m.refusals.Store(int64(len(m.refused)))
	m.set(pod, bytes)
	if total > m.budget {
		return true, m.beyond(share)
	}
	return true, m.retry(before > bytes)
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
	delete(m.refused, pod)
	m.refusals.Store(int64(len(m.refused)))
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

// share returns the largest amount that every namespace may use, while one namespace wants so much.
func (m *memory) share(namespace string, wanted int) int {
	amounts := []int{wanted}
	for name, used := range m.namespaces {
		if name != namespace {
			amounts = append(amounts, used)
		}
	}
	slices.Sort(amounts)
	left := m.budget
	for i, amount := range amounts {
		share := left / (len(amounts) - i)
		if amount > share {
			return share
		}
		left -= amount
	}
	return m.budget
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
	if !isFree || m.total > m.budget {
		return nil
	}
	for pod := range m.refused {
		pods = append(pods, pod)
	}
	return pods
}
