#!/bin/bash
# tools.sh [COMMAND=PACKAGE...]: installs what the tests compare with and cannot do without: stock nft, the names of protocols
# and services, and the commands in the arguments, each from its Debian package.
set -euo pipefail
missing=()
for tool in nft=nftables "$@"; do
  command -v "${tool%%=*}" > /dev/null || missing+=("${tool#*=}")
done
[ -e /etc/protocols ] && [ -e /etc/services ] || missing+=(netbase)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "please install: ${missing[*]} (Debian: apt-get install ${missing[*]})" >&2
  exit 1
fi
# Targets of make may run at the same time, and apt-get update does not wait for its lock.
exec 9> /run/lock/multi-networkpolicy-nftables-tools
flock 9
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
