// Package sandbox watches the container runtime of the node: where pods run, and which pods are about to start.
//
//	CRI ─► Sandboxes ─► Sink (the cache): the network namespace of each local pod
//	NRI ─► NRI ──┬────► Sandboxes: starts and ends of sandboxes, before CRI lists them
//	             └────► Enforce: the rules of a pod, before its first process starts
//
// CRI is polled: Sandboxes list the sandboxes once a second, and ask for the status of each new sandbox in the background. A
// runtime that hangs on one sandbox delays only this sandbox.
//
// NRI calls the agent when a pod starts. The hook refuses the pod if its rules are not in force before the deadline of the hook.
// The hook always answers before the runtime stops waiting, since a runtime may start a pod without an answer.
package sandbox
