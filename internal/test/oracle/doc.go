// Package oracle says what policies mean, directly from the objects of the API. It is written from the specification, looks at all
// objects for each packet, and shares no code with the agent, which it judges.
//
//	objects (State) ─► Observe ─► Judge(packet) ─► Ruling of the sender's policies, Ruling of the receiver's policies
//
// Package conformance compares its rulings with packets in the kernel, package model with the tables that the cache makes.
package oracle
