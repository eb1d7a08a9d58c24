#!/bin/bash
# build.sh [REF]: builds the agent, and packs the image that the Dockerfile builds, with no engine and no
# registry, into bin/image.tar. REF is the manifests' image by default. GOARCH chooses the architecture, VERSION what
# `version` prints.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=multi-networkpolicy-nftables
ref=${1:-$(sed -n 's/^ *image: //p' manifests/base/daemonset.yaml)}
version=${VERSION:-$(git describe --tags --always --dirty 2> /dev/null || echo unknown)}

CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o "bin/$name" .
arch=$(go env GOARCH)
env -u GOARCH go run ./hack/image -ref "$ref" -arch "$arch" -o bin/image.tar "bin/$name:/$name"
echo "$ref ($version, $arch): bin/image.tar"
