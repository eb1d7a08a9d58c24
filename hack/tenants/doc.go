// Command tenants proves the threat model of docs/security.md: a tenant who may write every namespaced object in its own
// namespaces, and who is root in its own pods, cannot weaken or delay the enforcement of policies for the pods of other
// namespaces, stop an agent, or fill a node.
//
//	supervisor (supervise.go)            cgroups, temporary files; ends everything, whatever happens to the rig
//	  └─ rig (rig.go)                    in a network namespace of its own, so that no packet leaves the machine
//	       ├─ etcd, kube-apiserver       (apiserver.go) real processes; each user has a token and RBAC roles
//	       ├─ agent                      (agent.go) real process with the memory limit of the DaemonSet
//	       ├─ container runtime          (runtime.go) CRI and NRI over unix sockets
//	       ├─ victim                     (victim.go, measure.go) pods with policies and packets in flight
//	       └─ tenant                     (tenant.go) the attacker: an API client of its own, pods with root
//	            └─ attacks               (attack_*.go) one function each
//
// For each attack the rig measures how long a change of the victim takes until packets show it, before the attack, during
// it, after a restart of the agent while the objects of the attack still exist, and after the attack. bounds.go holds the
// bounds that every attack must keep; report.go prints the table.
package main
