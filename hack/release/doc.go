// Command release builds everything that a release consists of, from the work tree and the Go module cache alone. Equal sources make
// equal files, byte for byte, in any folder and on any machine with the same version of Go. See docs/release.md.
//
//	go run ./hack/release [-o DIR] VERSION
//	go run ./hack/release -push DIR
//
//	go build ─► binaries ─┬─► image ─► OCI layout, tar ─┐
//	                      ├─► SBOM                      │ digest
//	                      └─► man pages, completions    ▼
//	manifests ─► kustomize ─────────────────────► install.yaml ─┬─► SHA256SUMS
//	manifests/chart, CHANGELOG.md, git log ─► chart, CHANGES.md ┤
//	cmd/kubectl-mnp ─► archives, krew manifest ─────────────────┘
//
// With -push, it pushes the image in DIR to its registry, with the credentials of docker login.
package main
