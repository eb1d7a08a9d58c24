// Package manifests holds the objects that a cluster needs for the agent. Its tests keep the privileges of the agent minimal.
//
//	base ─► overlays (crio, node-taint, prometheus) ─► kubectl apply -k
//	        components (protect-network-status)
//	examples ─► kubectl apply -f
package manifests
