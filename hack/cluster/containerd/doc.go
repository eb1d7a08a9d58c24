// Package containerd pins the containerd of the test cluster's nodes that have NRI. Debian's containerd has no NRI.
//
//	tools.go: imports ─► go.mod: version ─► bootstrap.sh: go build ─► containerd and its shim for node 1
//
// The package has a module of its own, so that the agent does not depend on containerd's modules.
package containerd
