// Command apply checks the manifests against a real API server: it applies the base with each component and with each pair, in server
// dry runs with strict validation of fields. It also stores policies, and compares the columns of kubectl get.
//
//	hack/cluster/bootstrap.sh ─► API server with etcd ◄─ CRDs of OpenShift and of the Prometheus operator, as published
//	manifests ─► kustomize ─► each different object ─► server-side apply, dry run
package main
