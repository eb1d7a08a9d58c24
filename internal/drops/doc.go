// Package drops carries the packets that tables of a node have reported from the agent to those who follow them: the command drops,
// and its likes on other machines.
//
//	agent ─► Hub.Publish ─► followers ─► Hub.ServeHTTP ─► HTTP on loopback ─► Follow ─► Drop.Print
package drops
