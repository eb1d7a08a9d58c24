// Package tracing traces the packets of a pod and explains them in terms of policies. The command trace and the traces
// that annotations ask for share it.
//
//	Options ─► trace.Tracer ─► Answer (verdict, deciding policy, steps) ─► text, JSON or a log line
package tracing
