#!/bin/busybox sh
# The first process of the virtual machine. It runs the tests that /tests.sh lists, one package after the other, and switches
# the machine off. The second serial port carries the output of the tests, between a line "start PACKAGE" and a line
# "end PACKAGE STATUS"; these lines begin with the byte 1, which no test prints. The first serial port has the kernel's log.
export PATH=/bin:/usr/sbin HOME=/root DISPOSABLE_MACHINE=1
/bin/busybox --install -s /bin
add() { mkdir -p "$2" && mount -t "$1" "$1" "$2"; }
add proc /proc
add sysfs /sys
add devtmpfs /dev
add devpts /dev/pts
add tmpfs /dev/shm
add tmpfs /tmp
add tmpfs /run
add cgroup2 /sys/fs/cgroup
hostname vm
modprobe br_netfilter # as on most nodes of Kubernetes
ip link set lo up
stty -F /dev/ttyS1 raw -echo

run() { # PACKAGE ARGUMENT...: the test binary of a package, in the directory of the package
	package=$1
	shift
	cd "/src/$package" || return
	printf '\001start %s\n' "$package"
	"/tests/$package.test" "$@" </dev/null
	printf '\n\001end %s %d\n' "$package" $?
}

exec >/dev/ttyS1 2>&1
printf '\001kernel %s\n' "$(uname -r)"
. /tests.sh
poweroff -f
