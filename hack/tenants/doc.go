// Command tenants tests the threat model of docs/security.md: a hostile tenant cannot weaken or delay the enforcement of
// policies for the pods of other namespaces, stop an agent, or fill a node. The tenant may write every namespaced object in its
// own namespaces, and is root in its own pods.
//
//	supervisor (supervise.go)            cgroups, temporary files; ends all processes, even if the rig fails
//	  └─ rig (rig.go)                    in its own network namespace, so that no packet leaves the machine
//	       ├─ etcd, kube-apiserver       (apiserver.go) real processes; each user has a token and RBAC roles
//	       ├─ agent                      (agent.go) real process with the memory limit of the DaemonSet
//	       ├─ container runtime          (runtime.go) CRI and NRI over unix sockets
//	       ├─ victim                     (victim.go, measure.go) pods with policies and packets in flight
//	       └─ tenant                     (tenant.go) the attacker: an API client, pods with root
//	            └─ attacks               (attack_*.go) a function for each attack
//
//	before ─► during the attack ─► after a restart of the agent ─► after the attack ─► table
//
// In each of these phases (phase.go), the rig measures the time from a change of the victim until packets show the change. During
// the restart the objects of the attack exist. bounds.go holds the bounds of every attack; report.go prints the table.
package main
