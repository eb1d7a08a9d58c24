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
		// The thread is never unlocked, so it ends with this goroutine, and no other goroutine runs in the namespace.
		runtime.LockOSThread()
		if err = unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		for _, file := range legacyTables {
			names, errFile := os.ReadFile(file)
			if errFile != nil && !errors.Is(errFile, fs.ErrNotExist) {
				err = errFile
				return
			}
			has = has || len(names) > 0
		}
	}()
	<-done
	return has, err
}
