package cache

import "k8s.io/apimachinery/pkg/types"

// Sandbox is where a pod runs. The zero value is a sandbox that is not known.
type Sandbox struct {
	ID    string
	NetNS string // a path to open
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
		if t.pod.uid == uid {
			c.dirty[key] = struct{}{}
		}
	}
}
