// Command kubectl-mnp is the plugin of kubectl that answers questions about MultiNetworkPolicy: "kubectl mnp explain …".
// It has the commands of the agent's binary that need no node, and kustomize.
//
//	kubectl mnp ─► internal/command ─┬─► the cluster of the kubeconfig
//	                                 └─► manifests; internal/kustomize
package main
