// Package kustomize builds manifests from kustomize directories, for the kubectl plugin.
//
//	directory ─► Build ─► YAML ─► informers.Input
//
// The agent does not import it: kustomize runs git for remote bases, which the agent must not do, and with it the binary grows
// by 30 MB.
package kustomize
