// Package packet reads the headers of packets that the kernel hands to the agent, for a trace or for a rule that reports.
//
//	bytes of a packet ─► Parse ─► Headers
package packet
