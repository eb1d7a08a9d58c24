// Package kustomize builds the manifests with any of their components, for tests and for hack.
//
//	manifests ─────────────────┐
//	manifests/components/NAME ─┼─► Build ─► objects
//	patches ───────────────────┘
package kustomize
