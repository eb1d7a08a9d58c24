#!/bin/bash
# down.sh: ends the cluster, and with it all its pods; succeeds if there is none. The logs stay.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# The pid may have been given to another process since; its pid namespace has not.
if [ -s "$RUN/init.pid" ]; then
  init=$(cat "$RUN/init.pid")
  if [ "$(readlink "/proc/$init/ns/pid" || true)" = "$(cat "$RUN/init.ns")" ]; then
    kill -KILL "$init"   # the kernel ends the rest of the namespace, then its mounts and networks go
    gone() { [ ! -e "/proc/$init" ]; }
    eventually 30 gone || die "process $init does not end"
  fi
fi

emptied() { find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" -exec rmdir {} +; }
eventually 10 emptied || echo "some cgroups of the nodes are left" >&2
rm -rf "$RUN"
