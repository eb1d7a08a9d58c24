package cache

import "k8s.io/apimachinery/pkg/types"

// Sandbox tells where a pod runs. The zero value is an unknown sandbox.
type Sandbox struct {
	ID    string
	Pod   Key    // pod that it belongs to, according to the container runtime
	NetNS string // path of the network namespace, to open

	Handler string // handler of the container runtime that runs the pod; empty: the default
	Hooked  bool   // the runtime announced it before the first process of the pod (NRI)
}

// sandboxOf returns the sandbox of a pod. The sandbox of a static pod has the UID that the kubelet gave to the pod. The
// API server has only the mirror pod, with another UID, and with the first UID in an annotation that anybody can write.
// So the runtime must also know the pod by the same name.
// The caller holds the lock. The zero value means that none is known.
func (c *Cache) sandboxOf(p *pod) Sandbox {
	if s, ok := c.sandboxes[p.local.uid]; ok {
		return s
	}
	if s := c.sandboxes[p.local.mirrors]; p.local.mirrors != "" && s.Pod == p.key {
		return s
	}
	return Sandbox{}
}

// SetSandbox sets the sandbox of the pod with this UID. The pod may come later.
// A sandbox that is made anew under the same UID replaces the earlier sandbox.
func (c *Cache) SetSandbox(uid types.UID, s Sandbox) {
	c.lock()
	defer c.unlock()
	old, known := c.sandboxes[uid]
	s.Hooked = s.Hooked || old.Hooked && old.ID == s.ID // a list of the CRI does not say so
	if known && old == s {
		return
	}
	c.sandboxes[uid] = s
	if !known {
		c.counts.sandboxes.Add(1)
	}
	c.markSandbox(uid)
}

// DeleteSandbox notes that the pod with this UID has no sandbox. A pod that only the container runtime announced goes
// with its sandbox.
func (c *Cache) DeleteSandbox(uid types.UID) {
	c.lock()
	defer c.unlock()
	if t := c.byUID[uid]; t != nil && t.pod.announced {
		c.removePod(t.pod)
	}
	if _, known := c.sandboxes[uid]; !known {
		return
	}
	delete(c.sandboxes, uid)
	c.counts.sandboxes.Add(-1)
	c.markSandbox(uid)
}

// markSandbox marks the pod of a sandbox as dirty: by its UID, or as a mirror pod.
// The caller holds the lock. A sandbox without a local pod marks nothing.
func (c *Cache) markSandbox(uid types.UID) {
	mark := func(t *target) {
		c.dirty[t.id()] = struct{}{}
		c.updateRuntime(t)
		c.recount(t)
	}
	if t := c.byUID[uid]; t != nil {
		mark(t)
		return
	}
	for _, t := range c.targets {
		if t.pod.local.mirrors == uid {
			mark(t)
		}
	}
}
