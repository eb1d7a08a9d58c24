package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errNotNamespace is the error for a path to a plain file. A runtime creates a file and bind-mounts the namespace on it. If this
// process sees the plain file, the mount was not propagated into its container.
var errNotNamespace = errors.New("is no namespace; is the directory mounted with mountPropagation HostToContainer?")

// openableNetNS returns a path by which this process can open the sandbox's network namespace. hostPrefix is the directory where
// the host's root directory is mounted. If no path works, it tries the namespace of the sandbox's process.
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

// candidates returns the paths to try, the best first. It tries /run before /var/run, since /var/run is a symbolic link to /run
// on most hosts: an absolute link leads out of the prefix, to a directory that the agent's image may not have.
func candidates(hostPrefix string, info sandboxInfo) []string {
	var paths []string
	if info.netNS != "" {
		if rest, ok := strings.CutPrefix(info.netNS, "/var/run/"); ok {
			paths = append(paths, filepath.Join(hostPrefix, "/run", rest))
		}
		paths = append(paths, filepath.Join(hostPrefix, info.netNS))
	}
	if info.pid > 0 {
		// The process is the last resort: its PID can be used again after the sandbox has ended.
		paths = append(paths, filepath.Join(hostPrefix, fmt.Sprintf("/proc/%d/ns/net", info.pid)))
	}
	return paths
}

// checkNamespace returns an error unless the path is on nsfs, the file system of namespaces. It follows the links of
// /proc/PID/ns.
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
