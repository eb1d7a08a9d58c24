//go:build tools

// Package multus pins the Multus plugin that the test cluster's nodes run.
package multus

import _ "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus"
