// Package conformance proves, with real packets, that what the agent puts into the kernel is what the policies mean.
//
// An Oracle says from the plain API objects alone whether a packet may pass: it is written from the specification in the
// simplest way and shares no code with the packages that it judges. A Fabric makes the pods of a case real: network
// namespaces joined by bridges. A Player feeds a Case, a sequence of changes with quiet points, to an agent through an
// in-memory API server, and at each quiet point sends real packets between all pairs of addresses, in all protocols and
// ports, and compares what arrives with what the Oracle says. Cases are written by hand (testdata/cases), read from the
// documentation, or made at random by a Generator; a random one that fails is shrunk, and printed so that it can be kept
// in testdata/regressions.
//
// Only tests use the package.
package conformance
