// Package explain finds the verdict of policies on a packet, who reaches whom, and the connections that a change of policies
// opens and closes. It reads the same compiled policies, the same isolated interfaces and the same members of groups that tables are
// made of.
//
//	cache.View ──┐
//	             ├─► Explain ─► one packet: verdict, deciding rule, and why the other rules do not match
//	cache.Members┘     └─► Reaches ─► two pods: the verdicts of both ends, on each network that both are on
//
//	one cache ────► Matrix  ─► all pairs of pods: the ports that both ends allow
//	two caches ───► Diff    ─► the connections that only one of them allows
//
// The agent does not use this package: the commands explain and diff do.
package explain
