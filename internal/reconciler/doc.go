// Package reconciler carries the tables that the cache wants into the kernel.
//
//	cache.TakeDirty ─► queue (fair by namespace) ─► worker: cache.Plan ─► engine.Apply ─► kernel acknowledges
//	                     ▲                ▲                                    │
//	                     │                └── retry, with a growing pause ◄────┘ error
//	                     └── audit: somebody else changed the namespace
//	EnforceNow(pod) ─────────────────────────► the same work, past the queue: a pod that starts does not wait
//
// Each pod has two tables, see engine.Namespace. bridge.go looks for bridges in pods, in which the second table must have the rules
// of the policies.
//
// Only one worker works on a pod at a time. The work depends on the pod's target and on the tables that it has by now, never on
// the events in between. A table is only ever removed from a pod that is known to be selected by no policy: a
// pod that is gone, and the end of the agent, leave tables as they are.
package reconciler
