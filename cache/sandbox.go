package cache

import "k8s.io/apimachinery/pkg/types"

// Sandbox is where a pod runs. The zero value is a sandbox that is not known.
type Sandbox struct {
	ID    string
	Pod   Key    // whose it is, by the runtime's word
	NetNS string // a path to open
}

// sandboxOf is where the pod runs. The sandbox of a static pod has the UID that the kubelet gave it. The API server has only
// the mirror pod that the kubelet made, with another UID, and the first one in an annotation, which anybody can write: so
// the runtime must call the pod by the same name.
func (c *Cache) sandboxOf(p *pod) Sandbox {
	if s, ok := c.sandboxes[p.uid]; ok {
		return s
	}
	if s := c.sandboxes[p.mirrors]; s.Pod == p.key {
		return s
	}
	return Sandbox{}
}

// SetSandbox says where the pod with this UID runs. It may come before the pod does.
func (c *Cache) SetSandbox(uid types.UID, s Sandbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sandboxes[uid] == s {
		return
	}
	c.sandboxes[uid] = s
	c.markSandbox(uid)
}

// DeleteSandbox says that the pod with this UID runs nowhere.
func (c *Cache) DeleteSandbox(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropAnnounced(uid)
	s, known := c.sandboxes[uid]
	if !known {
		return
	}
	delete(c.sandboxes, uid)
	if s != (Sandbox{}) {
		c.markSandbox(uid)
	}
}

func (c *Cache) markSandbox(uid types.UID) {
	for key, t := range c.targets {
		if t.pod.uid == uid || t.pod.mirrors == uid {
			c.dirty[key] = struct{}{}
		}
	}
}
