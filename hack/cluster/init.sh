#!/bin/bash
# init.sh NODES: the first process of the cluster, started by up.sh in new mount, network and pid namespaces.
# All other processes are its children, so they end with it. The network, mounts and sysctls of the machine do not
# change.
#
#   here     10.79.0.100 on br-node: etcd, API server, controller manager, scheduler
#   node N   its own network, mount and UTS namespaces, see node.sh
#     eth0   10.79.0.N on br-node, the default route: the default master of a macvlan NAD
#     eth1   on br-data, without an address: a second wire; node.sh adds it to the node's bridge br-data
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
nodes=$1
[ $$ = 1 ] || die "only as the first process of a pid namespace"
read -r pid _ < /proc/self/stat   # /proc is still the /proc of the machine
readlink /proc/self/ns/pid > "$RUN/init.ns"
echo "$pid" > "$RUN/init.pid"
mount -t proc proc /proc

step() { echo "cluster: $1 ($SECONDS s)"; }

# start NAME COMMAND...: starts the command in the background, with a log and a pid file.
start() {
  local name=$1; shift
  setsid "$@" > "$LOG/$name.log" 2>&1 < /dev/null &
  echo $! > "$RUN/$name.pid"
}

mounts() {
  mount --make-rshared /
  mount -t tmpfs run /run
  mount -t tmpfs log /var/log   # the kubelet links the logs of all containers here
  mkdir -p /run/netns
  # All nodes share the state of the CNI plugins. So host-local IPAM, which knows only its own node, never assigns an
  # address to two pods.
  mkdir -p /var/lib/cni
  mount -t tmpfs cni /var/lib/cni
}

# The kubelet refuses to start without these values. The values of the machine must not change.
sysctls() {
  mkdir "$RUN/sysctl"
  while read -r key value; do
    echo "$value" > "$RUN/sysctl/${key//\//.}"
    mount --bind "$RUN/sysctl/${key//\//.}" "/proc/sys/$key"
  done <<'EOT'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
EOT
}

network() {
  ip link set lo up
  # In-cluster configuration works without kube-proxy: the server itself has the address of the service.
  ip addr add "$SERVICE_IP/32" dev lo
  sysctl -qw net.ipv4.ip_forward=1
  for bridge in br-node br-data; do
    ip link add "$bridge" type bridge
    ip link set "$bridge" up
  done
  ip addr add "$API_IP/24" dev br-node
  for n in $(seq "$nodes"); do node_network "$n"; done
}

node_network() {
  local n=$1 other
  ip netns add "node$n"
  ip link add eth0 netns "node$n" type veth peer name "node$n"
  ip link add eth1 netns "node$n" type veth peer name "data$n"
  ip link set "node$n" master br-node up
  ip link set "data$n" master br-data up
  for link in lo eth0 eth1; do ip -n "node$n" link set "$link" up; done
  ip -n "node$n" addr add "10.79.0.$n/24" dev eth0
  ip -n "node$n" route add default via "$API_IP"
  ip netns exec "node$n" sysctl -qw net.ipv4.ip_forward=1
  ip route add "10.77.$n.0/24" via "10.79.0.$n"
  for other in $(seq "$nodes"); do
    [ "$other" = "$n" ] || ip -n "node$n" route add "10.77.$other.0/24" via "10.79.0.$other"
  done
}

api() {
  start etcd etcd --data-dir="$RUN/etcd" --unsafe-no-fsync --log-level=warn
  start apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$API_IP" --secure-port=443 --endpoint-reconciler-type=none \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --allow-privileged --client-ca-file="$PKI/ca.crt" --cert-dir="$RUN/apiserver" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" \
    --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$HERE/audit.yaml" --audit-log-path="$LOG/audit.log" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key"
}

controllers() {
  start controller-manager kube-controller-manager --kubeconfig="$PKI/controller-manager.kubeconfig" \
    --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt"
  start scheduler kube-scheduler --kubeconfig="$PKI/scheduler.kubeconfig" --bind-address=127.0.0.1 --leader-elect=false
}

mounts
sysctls
network
api
# Not `ip netns exec`: it mounts a new /sys, which hides the cgroups from runc and the kubelet.
for n in $(seq "$nodes"); do
  start "node$n" nsenter --net="/run/netns/node$n" unshare --mount --uts --propagation private bash "$HERE/node.sh" "$n"
done
eventually 60 kubectl get --raw /readyz || die "the API server is not ready"
step "API server ready"
controllers
kubectl apply -f "$HERE/nad-crd.yaml" > /dev/null
for n in $(seq "$nodes"); do
  eventually 60 kubectl get node "node$n" || die "node$n is not there"
  kubectl wait --for=condition=Ready "node/node$n" --timeout=60s > /dev/null
  step "node$n ready"
done
# The API server refuses pods in a namespace without a service account.
eventually 30 kubectl get serviceaccount default || die "no service account"
touch "$RUN/ready"
exec "$BIN/pause"
