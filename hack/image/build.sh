#!/bin/bash
# build.sh [REF]: builds the agent and packs the same image as the Dockerfile into bin/image.tar, without an engine or a registry.
# REF is the image of the manifests by default. GOARCH sets the architecture, VERSION the output of the command version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=multi-networkpolicy-nftables
ref=${1:-$(sed -n 's/^ *image: //p' manifests/base/daemonset.yaml)}
version=${VERSION:-$(git describe --tags --always --dirty 2> /dev/null || echo unknown)}

# The tag makes the program a fifth smaller, see docs/release.md.
CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags "-s -w -X main.version=$version" -o "bin/$name" .
arch=$(go env GOARCH)
env -u GOARCH go run ./hack/image -ref "$ref" -arch "$arch" -o bin/image.tar "bin/$name:/$name"
echo "$ref ($version, $arch): bin/image.tar"
