// Package multus pins the Multus plugin that the test cluster's nodes run.
//
//	tools.go: imports ─► go.mod: version ─► bootstrap.sh: go build ─► CNI plugin of each node
//
// The package has a module of its own, so that the agent does not depend on Multus's modules.
package multus
