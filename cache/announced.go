package cache

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// announcement is of a pod that its container runtime told of. The API server will, soon.
type announcement struct {
	before types.UID // of the pod that had the name; events of it may still come
}

// AnnouncePod takes a pod that starts on this node, from its container runtime, which may know of it before the API
// server's events do. It counts until UpsertPod gives the pod itself, and goes with its sandbox if that never happens.
// A pod that is known stays as it is.
func (c *Cache) AnnouncePod(obj *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := Key{Namespace: obj.Namespace, Name: obj.Name}
	p := c.pods[key]
	if p != nil && p.uid == obj.UID || isOutside(obj) || obj.Spec.NodeName != c.node {
		return
	}
	a := &announcement{}
	if p != nil { // it has ended: two pods of a name are never there at once
		a.before = p.uid
		c.removePod(p)
	}
	c.upsertPod(key, nil, obj)
	if p := c.pods[key]; p != nil {
		p.announced = a
	}
}

// isLate says whether an event of a pod is of one that had the name before the one that was announced.
func (p *pod) isLate(uid types.UID) bool {
	return p != nil && p.announced != nil && p.uid != uid && p.announced.before == uid
}

// dropAnnounced forgets a pod that was only announced.
func (c *Cache) dropAnnounced(uid types.UID) {
	for _, t := range c.targets {
		if t.pod.uid == uid && t.pod.announced != nil {
			c.removePod(t.pod)
			return
		}
	}
}
