#!/bin/bash
# promtool.sh FOLDER [prometheus]: puts promtool, with which tests check alerts, or the server into the folder unless the machine has it. It
# is unpacked from Debian's package of Prometheus, and not installed with it: the package would start a server.
set -euo pipefail
program=${2:-promtool}
command -v "$program" > /dev/null || [ -x "$1/$program" ] && exit 0
if ! command -v apt-get > /dev/null; then
  echo "please install $program: https://prometheus.io/download/" >&2
  exit 1
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
cd "$temporary"
chmod 755 . # for the user _apt
if ! apt-get download -qq prometheus 2> /dev/null; then
  apt-get update -qq
  apt-get download -qq prometheus
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x "./usr/bin/$program"
mv "usr/bin/$program" "$folder/$program"
