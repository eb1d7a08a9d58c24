// Package cache is the live state of the agent. Objects go in; local pods whose table may have changed come out
// ([Cache.TakeDirty]), and for each of them the table that its network namespace must hold ([Cache.Plan]).
//
//	UpsertPod, UpsertPolicy, … ──► pods, policies, networks, namespaces        under one lock, briefly
//	                                  │ scope.go: which groups a pod is in
//	                                  ▼
//	                               groups: changes of members wait            group.go
//	                                  │
//	       TakeDirty ◄── dirty ◄──────┤
//	                                  ▼
//	       Plan(pod) ──► chains and sets of the pod                            plan.go, outside of the lock
//	       Target(pod) ─► the same, without a new plan
//
// # Invariants
//
// State only. A pod's table follows from the objects that the cache holds now, never from the order or the number of the
// events that led there. Two memories are exceptions. The first only ever isolates more: while the network status of a pod
// cannot be read, the interfaces stay isolated that the last readable status of the same pod named. SetBridged adds a fact of
// the pod's network namespace, which holds as long as the pod is local. The second: a peer group between two sizes has one set or
// two, depending on the size that it had before (split.go). Both allow the same packets.
//
// Pure. No goroutine, no I/O, no log.
//
// Closed. A field that cannot be understood allows nothing. Isolation needs no readable input; permission does.
//
// Short locks. An event holds the lock for the objects that it touches. Work that grows with a policy or with the number
// of its peers happens in Plan, which the worker of the affected pod calls: members are found in slices between which
// the lock is free, and chains are built without it. So a large policy delays the pods of its own namespace.
//
// Never missed. A pod whose table may differ from the table of the last Plan is dirty.
//
// Shared and immutable. Sets and chains of a table never change once handed out. An unchanged set keeps its pointer, and
// pods that use the same set get the same pointer.
package cache
