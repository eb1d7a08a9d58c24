// Package packet reads the headers of packets that the kernel hands to the agent: those of a trace, and those that rules report.
//
//	bytes of a packet ─► Parse ─► Headers
package packet
