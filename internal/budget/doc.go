// Package budget limits the rate of log lines, Events and reports for each object and each namespace, so that no tenant floods
// the log or the API server.
//
//	Allow(object, namespace) ──► token of the object? ──► token of the namespace? ──► true
//	                                    └────────── no ───────────┴──────────────────► false, counted
//
// It is a token bucket for each object and each namespace. The buckets refill over time, a namespace's ten times as fast as an
// object's. Full buckets are deleted, so the memory depends on the recent activity only.
package budget
