#!/bin/bash
# Installs what the tests compare with and cannot do without: stock nft, and the names of protocols and services.
set -euo pipefail
missing=()
command -v nft > /dev/null || missing+=(nftables)
[ -e /etc/protocols ] && [ -e /etc/services ] || missing+=(netbase)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "please install: ${missing[*]} (Debian: apt-get install ${missing[*]})" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
