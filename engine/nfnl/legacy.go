package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// legacyTables are files of the namespace of the reading thread. Each line is the name of a table of iptables-legacy or
// ip6tables-legacy. The kernel makes such a table when a program first uses it. Without the kernel's module, there is no file.
var legacyTables = []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"}

// HasLegacyTables reports whether the namespace that netns is a handle of has a table of iptables-legacy or ip6tables-legacy,
// which nf_tables does not list. It needs CAP_SYS_ADMIN to enter the namespace.
func HasLegacyTables(netns *os.File) (has bool, err error) {
	err = Elsewhere(func() error {
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return nil
	}, func() (err error) {
		has, err = readLegacyTables()
		return err
	})
	return has, err
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
