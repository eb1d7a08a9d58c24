//go:build tools

// Package containerd pins the containerd of the test cluster's nodes that have NRI.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
)
