#!/bin/bash
# down.sh: ends the cluster and all its pods; succeeds if there is no cluster. The logs stay.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Another process may have the pid by now, but no other process has the pid namespace.
if [ -s "$RUN/init.pid" ]; then
  init=$(cat "$RUN/init.pid")
  if [ "$(readlink "/proc/$init/ns/pid" || true)" = "$(cat "$RUN/init.ns")" ]; then
    kill -KILL "$init"   # the kernel ends the rest of the pid namespace, then the mounts and networks
    gone() { [ ! -e "/proc/$init" ]; }
    eventually 30 gone || die "process $init does not end"
  fi
fi

emptied() { find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" -exec rmdir {} +; }
eventually 10 emptied || echo "some cgroups of the nodes are left" >&2
rm -rf "$RUN"
