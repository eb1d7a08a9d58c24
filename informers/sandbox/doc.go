// Package sandbox watches the container runtime of the node: where pods run, and which pods are about to start.
//
//	CRI ─► Sandboxes ─► Sink (the cache): the network namespace of each local pod
//	NRI ─► NRI ──┬────► Sandboxes: news of sandboxes that no list has yet
//	             └────► Enforce: the rules of a pod that starts, before its first process
//
// A runtime that hangs on one sandbox delays that sandbox alone. A pod that starts is refused if its rules are not in
// force before the deadline of the hook: the hook always answers before the runtime gives up.
package sandbox
