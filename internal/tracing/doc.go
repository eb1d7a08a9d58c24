// Package tracing traces the packets of a pod and explains them in terms of policies. The command trace and traces by annotation
// share it.
//
//	Options ─► trace.Filter ─► trace.Tracer ─► trace.Packet ─► Answer (verdict, policy, steps) ─► text, JSON or a log line
package tracing
