// Package manifests holds the objects that a cluster needs for the agent. Its tests keep the privileges of the agent minimal.
//
//	base ──────────────┬─► kustomization of a user ─► kubectl apply -k
//	components/NAME ───┤
//	                   └─► chart (links to the files) ─► helm install
//	examples ─► kubectl apply -f
package manifests
