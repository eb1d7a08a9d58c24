#!/bin/bash
# up.sh [NODES]: starts a cluster, and returns when all its nodes are Ready. Default: 1 node.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
nodes=${1:-1}
[ -e "$IMAGES/pause.tar" ] || die "run bootstrap.sh first"   # bootstrap.sh creates it last
[ ! -e "$RUN" ] || die "$RUN exists: run down.sh first"
mkdir -p "$RUN"
rm -rf "$LOG"
mkdir -p "$LOG"
bash "$HERE/pki.sh" "$nodes"

# Without --mount-proc: the first process needs the old /proc for a moment, to read its pid outside the cluster.
setsid unshare --mount --net --pid --fork --propagation private \
  bash "$HERE/init.sh" "$nodes" > "$LOG/up.log" 2>&1 < /dev/null &
started() { [ -e "$RUN/ready" ] || ! kill -0 $!; }
eventually 120 started || true
cat "$LOG/up.log"
[ -e "$RUN/ready" ] || { bash "$HERE/down.sh"; die "the cluster did not start: see $LOG"; }
