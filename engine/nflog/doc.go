// Package nflog receives the packets that rules in a network namespace hand to an NFLOG group (nfnetlink_log).
//
//	rule: log group N ─► kernel ─► socket in the namespace ─► Listener.Run ─► Packet
//
// The kernel gives a group to a single socket. It copies the start of each packet, and never waits for the reader: packets that do
// not fit the buffer of the socket are lost and counted.
package nflog
