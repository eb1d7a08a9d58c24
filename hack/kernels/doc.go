// Kernels runs the kernel tests of this repository under other kernels: it boots Debian's kernels in QEMU, runs the test
// binaries of packages inside, and prints which package passed on which kernel.
//
//	go run ./hack/kernels                                  all kernels, all packages that have kernel tests
//	go run ./hack/kernels -kernels 6.1 ./engine/...        one kernel, some packages
//	go run ./hack/kernels -cpus 1 -run Trace ./engine      one CPU, some tests
//
// A package has kernel tests if its tests import internal/test/lab, so new packages need no entry here.
//
//	apt-get: linux-image ─► vmlinuz, modules ──┐                        ┌─ virtual machine (QEMU) ──────────────┐
//	                        (kept in the cache)├─► initramfs ─► boot ─► │ init.sh: mount, then for each package │
//	go test -c: test binaries, the work tree ──┤   (one file)           │ engine.test, cache.test, …            │
//	this machine: nft, busybox, /etc/services ─┘                        └──┬──────────────────┬─────────────────┘
//	                                                        serial port 1: │   serial port 2: │ output, exit status
//	                                                          kernel log ◄─┘                  ▼
//	                                                      go tool test2json ─► table: kernel × package
//
// Everything that the tests need is in the initramfs, so the virtual machine has no disk, no network but its own, and no
// access to the files of this machine. Kernel modules are loaded by the kernel itself, through modprobe, as on a node.
//
// The run fails if a test fails, if a package does not report (the kernel crashed, or the time is over), or if a kernel
// cannot be had. Logs stay in bin/kernels. The program needs Linux on amd64, and Debian's tools: hack/tools.sh installs them.
package main
