package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// hostRoot is a host's root directory with namespaces at these paths, and plain files at the others.
func hostRoot(t *testing.T, namespaces, files []string) string {
	t.Helper()
	root := t.TempDir()
	place := func(path string, put func(string) error) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := put(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range namespaces {
		place(p, func(path string) error { return os.Symlink("/proc/self/ns/net", path) })
	}
	for _, p := range files {
		place(p, func(path string) error { return os.WriteFile(path, nil, 0o600) })
	}
	return root
}

func TestOpenableNetNS(t *testing.T) {
	pid := fmt.Sprintf("/proc/%d/ns/net", os.Getpid())
	for _, tc := range []struct {
		name       string
		namespaces []string
		files      []string
		info       sandboxInfo
		want       string
		err        error
	}{
		{"as told", []string{"/var/run/netns/x"}, nil, sandboxInfo{netNS: "/var/run/netns/x"}, "/var/run/netns/x", nil},
		{"no /var/run", []string{"/run/netns/x"}, nil, sandboxInfo{netNS: "/var/run/netns/x"}, "/run/netns/x", nil},
		{"/run first", []string{"/run/netns/x", "/var/run/netns/x"}, nil, sandboxInfo{netNS: "/var/run/netns/x"},
			"/run/netns/x", nil},
		{"elsewhere", []string{"/opt/x"}, nil, sandboxInfo{netNS: "/opt/x", pid: 1}, "/opt/x", nil},
		{"only a process", []string{pid}, nil, sandboxInfo{pid: os.Getpid()}, pid, nil},
		{"the path is gone", []string{pid}, nil, sandboxInfo{netNS: "/run/netns/x", pid: os.Getpid()}, pid, nil},
		{"nothing there", nil, nil, sandboxInfo{netNS: "/run/netns/x"}, "", fs.ErrNotExist},
		{"mount not propagated", nil, []string{"/run/netns/x"}, sandboxInfo{netNS: "/run/netns/x"}, "", errNotNamespace},
		{"mount not propagated, but a process", []string{pid}, []string{"/run/netns/x"},
			sandboxInfo{netNS: "/run/netns/x", pid: os.Getpid()}, pid, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := hostRoot(t, tc.namespaces, tc.files)
			got, err := openableNetNS(root, tc.info)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got error %v, want %v", err, tc.err)
			}
			if tc.want != "" && got != filepath.Join(root, tc.want) {
				t.Errorf("got %s, want %s under %s", got, tc.want, root)
			}
		})
	}
}
