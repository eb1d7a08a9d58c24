// Package enforcement answers, on a node, which policies are enforced in which pods, since when, and why others are not. The agent
// serves the answer beside its health checks; package query asks the agents of a cluster.
//
//	reconciler ─► Record: acknowledged tables, errors ─┐
//	cache      ─► wanted policies and gaps ────────────┼─► Handler ─► a line for each pod ─► query
//	progress   ─► since when a pod waits ──────────────┘
//
// While nobody asks, a pod costs a short note for each change of its table.
package enforcement
