package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errNotNamespace is a path that leads to a plain file. A runtime mounts a namespace on such a file: where it shows as
// one, the mount did not reach this container.
var errNotNamespace = errors.New("is no namespace; is the directory mounted with mountPropagation HostToContainer?")

// openableNetNS returns a path under which this process can open the sandbox's network namespace, given where the
// host's root directory is. It falls back to the sandbox's process, for runtimes that tell no path.
func openableNetNS(hostPrefix string, info sandboxInfo) (string, error) {
	var errs []error
	for _, p := range candidates(hostPrefix, info) {
		err := checkNamespace(p)
		if err == nil {
			return p, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", p, err))
	}
	return "", errors.Join(errs...)
}

// candidates are in the order of preference. /run comes before /var/run, which on most hosts is a link to the absolute
// path /run: below a prefix that link would lead out of it again, and an image need not have it at all.
func candidates(hostPrefix string, info sandboxInfo) []string {
	var paths []string
	if info.netNS != "" {
		if rest, ok := strings.CutPrefix(info.netNS, "/var/run/"); ok {
			paths = append(paths, filepath.Join(hostPrefix, "/run", rest))
		}
		paths = append(paths, filepath.Join(hostPrefix, info.netNS))
	}
	if info.pid > 0 {
		paths = append(paths, filepath.Join(hostPrefix, fmt.Sprintf("/proc/%d/ns/net", info.pid)))
	}
	return paths
}

func checkNamespace(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errNotNamespace
	}
	return nil
}
