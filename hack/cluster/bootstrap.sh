#!/bin/bash
# bootstrap.sh: installs and builds all that a cluster needs, from Debian's packages and the Go module proxy.
# What is there already is left alone, so it is cheap to run before every use.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
mkdir -p "$BIN" "$IMAGES" "$K8S_CACHE"
step() { echo "bootstrap: $1 ($SECONDS s)"; }

missing=()
for package in containerd runc containernetworking-plugins iproute2 nftables openssl procps; do
  dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
step "Debian packages, new: ${missing[*]:-none}"

export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off
build() { go build -trimpath "$@"; }   # not for debugging: -s -w below halves the link

# Kubernetes takes minutes, so it is kept by the hash of all that goes into it.
cd "$HERE/k8s"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
key=$({ go env GOVERSION; cat go.mod go.sum main.go; } | sha256sum | cut -c1-16)
kubernetes=$K8S_CACHE/k8s-$version-$key
if [ ! -x "$kubernetes" ]; then
  # Unset, the API server would call itself v0.0.0, which clients that compare versions refuse.
  v=k8s.io/component-base/version minor=${version#v*.}
  build -ldflags="-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=${minor%.*}" -o "$kubernetes.$$" .
  mv "$kubernetes.$$" "$kubernetes"   # a build that is stopped half way leaves nothing that looks whole
fi
ln -sfn "$kubernetes" "$BIN/k8s"
for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do ln -sfn k8s "$BIN/$name"; done
step "Kubernetes $version"

mkdir -p "$BIN/cni"
(cd "$HERE/multus" && build -ldflags='-s -w' -o "$BIN/cni/multus" gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus)
cp /usr/lib/cni/* "$BIN/cni/"
step "Multus and CNI plugins"

cd "$HERE"
build -ldflags='-s -w' -o "$BIN/pause" ./pause
build -o "$BIN/image" ../image
"$BIN/image" -ref local.test/pause:1 -o "$IMAGES/pause.tar" "$BIN/pause:/pause"
step "pause image"
