package main

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestArchive: cpio lists the files of an archive, with their parents before them, and unpacks their content.
func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := newArchive(&b)
	a.file("etc/a", 0o644, []byte("first"))
	a.file("etc/a", 0o644, []byte("second"))
	a.file("etc/deep/er/b", 0o755, nil)
	a.symlink("sbin", "bin")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("SKIPPED: no busybox on this machine")
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"-t"}, "etc\netc/a\netc/deep\netc/deep/er\netc/deep/er/b\nsbin\n"},
		{[]string{"-i", "--to-stdout", "etc/a"}, "first"},
	} {
		c := exec.Command(busybox, append([]string{"cpio", "--quiet"}, tc.args...)...)
		c.Stdin = bytes.NewReader(b.Bytes())
		out, err := c.CombinedOutput()
		if diff := cmp.Diff(tc.want, string(out)); err != nil || diff != "" {
			t.Errorf("cpio %v: %v (-want +got):\n%s", tc.args, err, diff)
		}
	}
}
