package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// legacyTables are files of the namespace of the reading thread. Each line is the name of a table of iptables-legacy or
// ip6tables-legacy. The kernel makes such a table when a program first uses it. Without the kernel's module, there is no file.
var legacyTables = []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"}

// HasLegacyTables reports whether the namespace that netns is a handle of has a table of iptables-legacy or ip6tables-legacy,
// which nf_tables does not list. It needs CAP_SYS_ADMIN to enter the namespace.
func HasLegacyTables(netns *os.File) (has bool, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		has, err = inNamespace(netns, readLegacyTables)
		if !errors.Is(err, errStays) {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return has, err
}

// errStays means that a thread could not leave a network namespace. A thread that stays locked ends with its goroutine.
var errStays = errors.New("leave the network namespace")

// inNamespace calls ask while the thread, which must be locked, is in the namespace.
func inNamespace(netns *os.File, ask func() (bool, error)) (bool, error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return false, err
	}
	defer own.Close()
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		return false, fmt.Errorf("enter the network namespace: %w", err)
	}
	answer, err := ask()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return false, fmt.Errorf("%w: %w", errStays, back)
	}
	return answer, err
}

// readLegacyTables reports whether the namespace of the thread has tables.
func readLegacyTables() (bool, error) {
	for _, file := range legacyTables {
		names, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if len(names) > 0 {
			return true, nil
		}
	}
	return false, nil
}
