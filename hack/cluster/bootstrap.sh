#!/bin/bash
# bootstrap.sh: installs and builds all parts of a cluster, from Debian's packages and the Go module proxy.
# It skips installed and built parts, so it is cheap to run before every use.
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

# cached FOLDER PACKAGE [LDFLAGS [TAGS [NAME]]]: builds a package in the module of the folder, and prints the path of the
# program. A build takes minutes, so the cache keeps the program under NAME (default: FOLDER) and the hash of its inputs.
# The hash leaves out doc.go, which has only comments.
cached() {
  local key file
  key=$(cd "$HERE/$1" && { GLOBIGNORE=./doc.go; go env GOVERSION GOARCH; cat go.mod go.sum ./*.go; } | sha256sum | cut -c1-16)
  file=$K8S_CACHE/${5:-$1}-$key
  if [ ! -x "$file" ]; then
    (cd "$HERE/$1" && go build -trimpath -tags "${4:-}" -ldflags="-s -w ${3:-}" -o "$file.$$" "$2") >&2
    mv "$file.$$" "$file"   # an interrupted build leaves no file with this name
  fi
  echo "$file"
}

# Without these flags the API server reports v0.0.0, and clients that compare versions refuse it.
version=$(sed -n 's#^\tk8s.io/kubernetes ##p' "$HERE/k8s/go.mod")
minor=${version#v*.} v=k8s.io/component-base/version
file=$(cached k8s . "-X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=${minor%.*}")
ln -sfn "$file" "$BIN/k8s"
for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do ln -sfn k8s "$BIN/$name"; done
step "Kubernetes $version"

mkdir -p "$BIN/cni"
file=$(cached multus gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus)
cp --remove-destination /usr/lib/cni/* "$BIN/cni/"   # a running cluster may use them
ln -sfn "$file" "$BIN/cni/multus"
step "Multus and CNI plugins"

# In a separate folder, since Debian's programs have the same names. The shim uses Debian's runc.
mkdir -p "$BIN/containerd"
ctd=github.com/containerd/containerd/v2 tags=no_btrfs,no_devmapper,no_zfs,no_tracing,urfave_cli_no_docs
version=$(sed -n "s#^require $ctd ##p" "$HERE/containerd/go.mod")
file=$(cached containerd $ctd/cmd/containerd "-X $ctd/version.Version=$version" $tags)
ln -sfn "$file" "$BIN/containerd/containerd"
file=$(cached containerd $ctd/cmd/containerd-shim-runc-v2 "" no_grpc,urfave_cli_no_docs containerd-shim)
ln -sfn "$file" "$BIN/containerd/containerd-shim-runc-v2"
step "containerd $version"

cd "$HERE"
go build -trimpath -o "$BIN/pause" ./pause
go build -trimpath -o "$BIN/image" ../image
"$BIN/image" -ref local.test/pause:1 -o "$IMAGES/pause.tar" "$BIN/pause:/pause"
step "image of the pause process"
