// Package kustomize builds manifests from kustomize directories, for the kubectl plugin.
//
//	directory ─► Build ─► YAML ─► informers.Input
//
// The agent does not import it: kustomize runs git for remote bases, which the agent must not do. It also adds 2.5 MB
// to the binary, and 30 MB in a build with cgo.
package kustomize
