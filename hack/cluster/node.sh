#!/bin/bash
# node.sh N: starts a node in its own network, mount and UTS namespaces: containerd, Multus, kubelet.
# Each node has its own /run/containerd, /run/netns and /run/nri at the usual paths. Node 1 has the built containerd, with
# NRI. The other nodes have Debian's containerd, which is older than NRI. An agent must work with both.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
n=$1
dir=$RUN/node$n.d
mkdir -p "$dir/cni"
hostname "node$n"   # a hostNetwork pod may read the name of its node from it
mount --make-rshared /
mount -t tmpfs run /run
mkdir /run/containerd /run/netns

# The node's end of the second wire. A NAD of type bridge that names br-data spans all nodes.
ip link add br-data type bridge
ip link set br-data up
ip link set eth1 master br-data

cat > "$dir/containerd.toml" <<EOT
version = 2
root = "$dir/root"
state = "$dir/state"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "local.test/pause:1"
  # Without CAP_SYS_RESOURCE, as in some containers, runc cannot lower an OOM score and fails.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$BIN/cni"
    conf_dir = "$dir/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
EOT

cat > "$dir/cni/00-multus.conf" <<EOT
{
  "cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus",
  "kubeconfig": "$PKI/multus.kubeconfig", "binDir": "$BIN/cni", "cniDir": "/var/lib/cni/multus",
  "logFile": "$LOG/multus$n.log", "logLevel": "error",
  "delegates": [{
    "cniVersion": "1.0.0", "name": "cluster",
    "plugins": [{
      "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.$n.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$dir/ipam"}
    }]
  }]
}
EOT

cat > "$dir/kubelet.yaml" <<EOT
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: AlwaysAllow}
tlsCertFile: $PKI/node$n.crt
tlsPrivateKeyFile: $PKI/node$n.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP$n
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
protectKernelDefaults: true
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 10Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
podLogsDir: $LOG/pods$n
volumePluginDir: $dir/plugins
resolvConf: ""
clusterDNS: [10.96.0.10]   # no process answers there; without it each pod gets a warning
EOT

# The kubelet does not create its root cgroup. Version 1 has a root cgroup in each hierarchy. A new cpuset is empty, so
# no process could run in it.
cgroups() {
  local h f
  for h in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    case $(stat -f -c %T "$h") in cgroupfs|cgroup2fs) ;; *) continue;; esac
    [ "$h" = /sys/fs/cgroup ] || [ ! -e /sys/fs/cgroup/cgroup.controllers ] || continue
    mkdir -p "$h/$CGROUP$n"
  done
  [ -d /sys/fs/cgroup/cpuset ] || return 0
  for f in cpuset.cpus cpuset.mems; do cat "/sys/fs/cgroup/cpuset/$f" > "/sys/fs/cgroup/cpuset/$CGROUP$n/$f"; done
}
cgroups

[ "$n" != 1 ] || PATH=$BIN/containerd:$PATH   # the built shim comes before Debian's shim
setsid containerd -c "$dir/containerd.toml" > "$LOG/containerd$n.log" 2>&1 &
eventually 30 ctr version || die "containerd is not ready"
for image in "$IMAGES"/*.tar; do ctr -n k8s.io images import "$image"; done
eventually 60 kubectl get --raw /readyz || die "the API server is not ready"
exec kubelet --config="$dir/kubelet.yaml" --kubeconfig="$PKI/node$n.kubeconfig" --root-dir="$dir/kubelet" \
  --hostname-override="node$n" --node-ip="10.79.0.$n"
