// Package conformance compares the verdicts of the kernel with the meaning of the policies, packet by packet.
//
//	Case ─► Player ─► Server (API) ─► agent under test ─► tables in the Fabric
//	          │                                               │ real packets
//	          ├─► State ─► Oracle ─► expected verdict ──┐     ▼
//	          └─► probes ──────────────────────────► compared ─► Result, or Shrink ─► Format
//
// Package oracle decides from the API objects alone whether a packet may pass. A Fabric makes the pods of a Case real: network namespaces
// joined by bridges. A Player feeds a Case, a sequence of changes with quiet points, to an agent through an in-memory API
// server. At each quiet point it sends real packets between all pairs of addresses, in all protocols and to all ports, and the
// next packet in each direction of connections that are open. It compares the arrivals with the Oracle.
//
// Cases are written by hand (testdata/cases), read from the documentation, or made at random by a generator. A random Case that
// fails is shrunk and printed, so that it can be kept in testdata/regressions.
//
// Only tests use the package.
package conformance
