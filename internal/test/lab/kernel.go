package lab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelAtLeast reports whether the running kernel has the version, or a later one.
func KernelAtLeast(t TB, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatalf("version of the kernel: %v", err)
	}
	var is [2]int
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &is[0], &is[1]); err != nil {
		t.Fatalf("version of the kernel %s: %v", release, err)
	}
	return is[0] > major || is[0] == major && is[1] >= minor
}
