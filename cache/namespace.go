package cache

import corev1 "k8s.io/api/core/v1"

// namespace exists while there is a Namespace object of the name, or anything in it.
type namespace struct {
	name   string
	known  bool // there is a Namespace object; without one, only selectors that ask for nothing match
	labels labelSet

	own      *scope   // the scope of just this namespace, if an active group has it
	scopes   []*scope // the scopes by selector that it is in
	policies labelIndex[*policy]
	pods     int
}

// namespace returns the namespace, and makes it when there is none. The caller puts something in it, or calls
// dropNamespace.
func (c *Cache) namespace(name string) *namespace {
	ns := c.namespaces[name]
	if ns == nil {
		ns = &namespace{name: name}
		c.namespaces[name] = ns
		c.rescope(ns)
	}
	return ns
}

func (c *Cache) dropNamespace(ns *namespace) {
	if ns.known || ns.own != nil || ns.policies.items > 0 || ns.pods > 0 {
		return
	}
	for _, s := range ns.scopes {
		delete(s.members, ns)
	}
	delete(c.namespaces, ns.name)
}

// UpsertNamespace takes a Namespace as it is now.
func (c *Cache) UpsertNamespace(obj *corev1.Namespace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ns := c.namespace(obj.Name)
	if ns.known && ns.labels.equal(obj.Labels) {
		return
	}
	ns.known = true
	ns.labels = newLabelSet(obj.Labels)
	c.rescope(ns)
}

// DeleteNamespace says that there is no such Namespace. Pods that are still in it stay peers of selectors that do not
// ask for labels of the namespace.
func (c *Cache) DeleteNamespace(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ns := c.namespaces[name]
	if ns == nil || !ns.known {
		return
	}
	ns.known = false
	ns.labels = nil
	c.rescope(ns)
	c.dropNamespace(ns)
}

// rescope brings the scopes that the namespace is in up to date with its labels, and then the groups of the pods in it
// that are attached to a network of a scope that it entered or left.
func (c *Cache) rescope(ns *namespace) {
	affected := map[*network]struct{}{}
	for _, s := range c.scopes {
		if s.namespaces == nil {
			continue
		}
		_, was := s.members[ns]
		is := s.selects(ns)
		if was == is {
			continue
		}
		if is {
			s.members[ns] = struct{}{}
			ns.scopes = append(ns.scopes, s)
		} else {
			delete(s.members, ns)
			ns.scopes = without(ns.scopes, s)
		}
		for n := range s.indexes {
			affected[n] = struct{}{}
		}
	}
	for n := range affected {
		for p := range n.pods[ns] {
			c.regroup(p, &p.podState)
		}
	}
}
