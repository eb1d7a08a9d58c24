#!/bin/bash
# in.sh cp|nodeN COMMAND...: runs a command inside the control plane or a node, in the current folder.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
where=$1; shift
[ -e "$RUN/ready" ] || die "no cluster is up"
inside=(nsenter -t "$(cat "$RUN/init.pid")" --mount --net --pid --wdns="$PWD")
if [ "$where" != cp ]; then
  # The pid is a pid of the cluster's pid namespace, so nsenter runs twice.
  inside+=(nsenter -t "$(cat "$RUN/$where.pid")" --mount --net --uts --wdns="$PWD")
fi
exec "${inside[@]}" "$@"
