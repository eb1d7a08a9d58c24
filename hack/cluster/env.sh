# shellcheck shell=bash disable=SC2034
# env.sh: the paths and addresses of the cluster, sourced by every script here. The caller may set CLUSTER_DIR and K8S_CACHE.
CLUSTER_DIR=${CLUSTER_DIR:-${TMPDIR:-/tmp}/mnp-cluster}
K8S_CACHE=${K8S_CACHE:-/var/cache/mnp-k8s}
BIN=$CLUSTER_DIR/bin IMAGES=$CLUSTER_DIR/images LOG=$CLUSTER_DIR/log RUN=$CLUSTER_DIR/run
PKI=$RUN/pki
CGROUP=${CLUSTER_DIR##*/}-node   # followed by the number of the node
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The built kubectl comes before a kubectl of the machine.
PATH=$BIN:$PATH:/usr/sbin:/sbin
# kubectl caches the API of an address, and all clusters have the same address.
export CLUSTER_DIR K8S_CACHE PATH KUBECONFIG=$PKI/admin.kubeconfig KUBECACHEDIR=$RUN/kubectl

# The address of the API server on the node network, and the first address of the service range, which pods use.
API_IP=10.79.0.100 SERVICE_IP=10.96.0.1

die() { echo "$*" >&2; exit 1; }

# eventually SECONDS COMMAND...: runs the command silently until it succeeds or the time is over.
eventually() {
  local end=$((SECONDS + $1)); shift
  until "$@" > /dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then return 1; fi
    sleep 0.1
  done
}
