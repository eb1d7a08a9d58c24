package cache

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// Namespace is the part of a Namespace object that policies depend on.
type Namespace struct {
	Name     string
	Labels   labelindex.Set
	DropLog  Choice           // see DropLogAnnotation
	Problems []policy.Problem // problems of the annotation
}

// NewNamespace reads a Namespace object.
func NewNamespace(obj *corev1.Namespace) Namespace {
	value, ok := obj.Annotations[DropLogAnnotation]
	choice := choiceOf(value, ok)
	return Namespace{Name: obj.Name, Labels: labelindex.NewSet(obj.Labels), DropLog: choice, Problems: choice.problems()}
}

// namespace has the state of a namespace. It exists while the Namespace object exists, or any object in the namespace.
type namespace struct {
	name      string
	known     bool // the Namespace object exists; otherwise, only selectors without conditions match
	labels    labelindex.Set
	relabeled int // raised with each change of the labels
	dropLog   Choice

	own     *scope               // the scope of exactly this namespace; nil: no active group has it
	scopes  []*scope             // scopes with a selector that contain it, sorted by ID
	pods    map[*pod]struct{}    // pods with interfaces, and local pods
	targets map[*target]struct{} // local pods

	policies labelindex.Index[*installed] // policies by the labels of the pods that they select
	ordered  []*installed                 // policies sorted by name
	items    int                          // size of all policies, with the rules that were dropped
	stubs    int                          // policies whose rules were dropped

	clusterPeers int // peers with a namespaceSelector, also peers of policies whose rules were dropped

	policyVersion int // raised with each change of a policy

	plans map[planKey]*sharedPlan // plans of local pods that another pod may share

	groups  int                // number of groups that policies of the namespace use
	members int                // shares in these groups
	cut     map[*installed]cut // policies that are left out because their groups have too many members
	retry   time.Duration      // pause until they are tried again; doubles each time
	retryAt time.Time          // time of the next try

	addressed addressed // the pods of the namespace as peers

	recent []labelindex.Set // recent labels of its pods, the newest first, see share

	version int // raised when labels or attachments of a pod change
	byLabel podIndex
}

// namespace returns the namespace, and makes it if it does not exist. The caller must refer to it, or call
// dropNamespace.
// The caller holds the lock.
func (c *Cache) namespace(name string) *namespace {
	ns := c.namespaces[name]
	if ns == nil {
		ns = &namespace{name: name, pods: map[*pod]struct{}{}, targets: map[*target]struct{}{}}
		c.namespaces[name] = ns
		c.counts.namespaces.Add(1)
		c.rescope(ns)
	}
	return ns
}

// dropNamespace forgets a namespace that nothing refers to.
// Anything that refers to the namespace keeps it: its object, a scope, policies, pods, and groups.
// The caller holds the lock, and must not use ns afterwards.
func (c *Cache) dropNamespace(ns *namespace) {
	if ns.known || ns.own != nil || len(ns.ordered) > 0 || len(ns.pods) > 0 || ns.groups > 0 {
		return
	}
	delete(c.namespaces, ns.name)
	c.counts.namespaces.Add(-1)
}

// mostRecent is the number of different labels that a namespace remembers: the API server lists the pods of a Deployment one after
// another, and they have the same labels.
const mostRecent = 4

// share returns the labels, or equal labels of another pod of the namespace, so that their memory is shared.
func (ns *namespace) share(labels labelindex.Set) labelindex.Set {
	i := slices.IndexFunc(ns.recent, func(s labelindex.Set) bool { return slices.Equal(s, labels) })
	switch {
	case i >= 0:
		return ns.recent[i]
	case len(labels) == 0:
		return nil
	case len(ns.recent) == mostRecent:
		ns.recent = ns.recent[:mostRecent-1]
	}
	ns.recent = slices.Insert(ns.recent, 0, labels)
	return labels
}

// UpsertNamespace takes a Namespace as it is now.
// The labels must not change afterwards.
func (c *Cache) UpsertNamespace(obj Namespace) {
	c.lock()
	defer c.unlock()
	ns := c.namespace(obj.Name)
	c.setDropLog(ns, obj.DropLog)
	// Most updates of a Namespace change nothing that policies depend on, such as annotations.
	if ns.known && slices.Equal(ns.labels, obj.Labels) {
		return
	}
	c.relabel(ns, true, obj.Labels)
}

// DeleteNamespace removes a Namespace. Pods that are still in it stay peers of selectors without conditions.
// An unknown namespace is ignored.
func (c *Cache) DeleteNamespace(name string) {
	c.lock()
	defer c.unlock()
	ns := c.namespaces[name]
	if ns == nil || !ns.known {
		return
	}
	c.setDropLog(ns, choiceUnset)
	c.relabel(ns, false, nil)
	c.dropNamespace(ns)
}

// setDropLog notes whether pods of the namespace report dropped packets.
func (c *Cache) setDropLog(ns *namespace, choice Choice) {
	if ns.dropLog == choice {
		return
	}
	ns.dropLog = choice
	for t := range ns.targets {
		if t.selected.count > 0 {
			c.markStale(t)
		}
	}
}

// Namespaces returns the keys of the Namespace objects that the cache holds.
// The order is random. Informers compare them with the API server.
func (c *Cache) Namespaces() []Key {
	c.lock()
	defer c.unlock()
	var keys []Key
	for name, ns := range c.namespaces {
		if ns.known {
			keys = append(keys, Key{Name: name})
		}
	}
	return keys
}

// relabel updates the scopes that contain a namespace, and then, in slices, the groups of its pods.
// The caller holds the lock, which is released at intervals.
func (c *Cache) relabel(ns *namespace, known bool, labels labelindex.Set) {
	ns.known, ns.labels = known, labels
	// selectNamespaces compares this number: it has matched labels without the lock.
	ns.relabeled++
	// If no scope has gained or lost the namespace, its pods are in the same groups as before.
	if !c.rescope(ns) {
		return
	}
	walk := slice{cache: c}
	for p := range ns.pods {
		c.regroup(p, p.state)
		walk.step()
	}
}

// rescope finds the scopes that contain the namespace, and reports whether they changed. A namespace without a
// Namespace object has unknown labels, so only the scope of all namespaces contains it.
func (c *Cache) rescope(ns *namespace) (changed bool) {
	var now []*scope
	switch s := c.scopes[policy.Scope{}]; {
	case ns.known:
		now = c.labels.AppendCandidates(nil, ns.labels)
		now = slices.DeleteFunc(now, func(s *scope) bool { return !s.selects(ns) })
		slices.SortFunc(now, compareScopes)
	case s != nil:
		now = []*scope{s}
	}
	changed = !slices.Equal(ns.scopes, now)
	ns.scopes = now
	return changed
}

// candidates returns a list that contains every policy that selects a pod in this state.
// It saves a match of each policy with each pod.
func (ns *namespace) candidates(s *podState) []*installed {
	// The labels are unknown, so every policy selects the pod.
	if s.cutLabels {
		return ns.ordered
	}
	return ns.policies.AppendCandidates(nil, s.labels)
}

// podIndex finds the pods of a namespace by label. It is made for the second group that asks within a version of the
// namespace, and serves until a pod changes: groups come in numbers when a pod comes that many policies select, and
// events of pods pay nothing for the index.
type podIndex struct {
	version int                         // version of the namespace
	asked   bool                        // a group has asked at this version
	pods    map[labelindex.Label][]*pod // nil: not made yet
}

// fewPods is the number of pods below which a walk over all of them is cheaper than an index.
var fewPods = 64

// podsByLabel makes the index, in slices.
func (ns *namespace) podsByLabel(walk *slice) map[labelindex.Label][]*pod {
	index := map[labelindex.Label][]*pod{}
	for p := range ns.pods {
		for _, l := range p.state.labels {
			index[l] = append(index[l], p)
		}
		walk.step()
	}
	return index
}

// podCandidates returns a list with every pod of the namespace that the selector can match. nil and false mean all
// pods. It works in slices.
func (ns *namespace) podCandidates(s *labelindex.Selector, walk *slice) ([]*pod, bool) {
	// Without a required label, the index cannot narrow the list.
	if len(s.Pairs()) == 0 || len(ns.pods) < fewPods {
		return nil, false
	}
	x := &ns.byLabel
	switch {
	case x.version != ns.version || !x.asked:
		// The first group of a version walks over all pods: an index for a single group would cost more.
		*x = podIndex{version: ns.version, asked: true}
		return nil, false
	case x.pods == nil:
		version := ns.version
		pods := ns.podsByLabel(walk)
		// The walk releases the lock at intervals, so the index may mix two versions.
		if ns.version != version { // a pod has changed between two slices
			return nil, false
		}
		x.pods = pods
	}
	// The list of a required label with the fewest pods is the shortest list of candidates.
	count := func(labels []labelindex.Label) (n int) {
		for _, l := range labels {
			n += len(x.pods[l])
		}
		return n
	}
	best := slices.MinFunc(s.Pairs(), func(a, b []labelindex.Label) int { return count(a) - count(b) })
	if len(best) == 1 {
		return x.pods[best[0]], true
	}
	var list []*pod
	for _, l := range best {
		list = append(list, x.pods[l]...)
	}
	return list, true
}
