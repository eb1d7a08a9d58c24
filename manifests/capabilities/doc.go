// Package capabilities tests the capabilities of the agent's container against the kernel. It is apart from the other tests of the
// manifests, since hack/kernels also runs it on older kernels.
//
//	manifests/base/daemonset.yaml ─► capabilities ─► a confined process ─► the kernel work of the agent
package capabilities
