# shellcheck shell=bash disable=SC2034
# Sourced by every script here: where things are. CLUSTER_DIR and K8S_CACHE may be set from outside.
CLUSTER_DIR=${CLUSTER_DIR:-${TMPDIR:-/tmp}/mnp-cluster}
K8S_CACHE=${K8S_CACHE:-/var/cache/mnp-k8s}
BIN=$CLUSTER_DIR/bin IMAGES=$CLUSTER_DIR/images LOG=$CLUSTER_DIR/log RUN=$CLUSTER_DIR/run
PKI=$RUN/pki
CGROUP=${CLUSTER_DIR##*/}-node   # and the node's number
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The kubectl that was built goes before whatever the machine may have.
PATH=$BIN:$PATH:/usr/sbin:/sbin
# kubectl remembers what an address serves, and each cluster has the same.
export CLUSTER_DIR K8S_CACHE PATH KUBECONFIG=$PKI/admin.kubeconfig KUBECACHEDIR=$RUN/kubectl

# The API server's address on the node network, and the first of the service range, where pods look for it.
API_IP=10.79.0.100 SERVICE_IP=10.96.0.1

die() { echo "$*" >&2; exit 1; }

# eventually SECONDS COMMAND...: runs the command, silent, until it succeeds or the time is over.
eventually() {
  local end=$((SECONDS + $1)); shift
  until "$@" > /dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then return 1; fi
    sleep 0.1
  done
}
