// Kernels runs the kernel tests of this repository under other kernels: it boots Debian's kernels in QEMU, runs the test
// binaries of packages inside, and prints which package passed on which kernel.
//
//	go run ./hack/kernels                                  all kernels, all packages that have kernel tests
//	go run ./hack/kernels -kernels 6.1 ./engine/...        one kernel, some packages
//	go run ./hack/kernels -cpus 1 -run Trace ./engine      one CPU, some tests
//	go run ./hack/kernels -kernels 6.12 -run ConformanceRandom -args -conformance.duration=10m ./internal/command
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
// The initramfs contains everything that the tests need, so the virtual machine has no disk, no outside network, and no access to
// the files of this machine. The kernel loads its modules through modprobe, as on a node.
//
// QEMU emulates the machine. With two CPUs (the default) tests run in parallel and find races, but a busy host makes tests with
// time limits fail. With -cpus 1 the clock of the machine counts instructions, so the load of the host does not matter.
//
// The run fails if a test fails, if a package does not report (the kernel crashed, or the time is over), or if a download
// fails. Logs stay in bin/kernels. The program needs Debian on amd64; hack/tools.sh installs the tools.
package main
