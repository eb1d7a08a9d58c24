// Package terminal makes texts of tenants safe to show: names in the network namespace of a pod may hold any bytes, such as escape
// sequences that rewrite earlier lines.
//
//	name in a pod ─► Line ─► a line of drops, trace, enforcement or the log
package terminal
