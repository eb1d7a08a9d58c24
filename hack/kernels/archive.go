package main

import (
	"fmt"
	"io"
	"os"
	"path"
)

// archive writes a cpio archive of the format "newc", which the kernel unpacks into its first file system
// (Documentation/driver-api/early-userspace/buffer-format.rst). The first error of the writer is kept for close, and
// later calls do nothing.
type archive struct {
	w     io.Writer
	err   error           // the first error of w
	inode int             // number of the last entry
	dirs  map[string]bool // the directories so far
	files map[string]bool // the files so far
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, dirs: map[string]bool{".": true, "": true}, files: map[string]bool{}}
}

// File types, in the high bits of a mode.
const (
	typeDir     = 0o040000
	typeFile    = 0o100000
	typeSymlink = 0o120000
)

// entry writes one entry: its header, its name with a zero byte and its content. Name and content are padded to 4
// bytes.
func (a *archive) entry(name string, mode uint32, content []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	// The fields are inode, mode, uid, gid, links, mtime, size, four device numbers, the length of the name, and a
	// checksum that this format does not use.
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	head := append([]byte(header+name), 0)
	for _, part := range [][]byte{head, make([]byte, -len(head)&3), content, make([]byte, -len(content)&3)} {
		if _, err := a.w.Write(part); err != nil {
			a.err = err
			return
		}
	}
}

// dir adds a directory and its parents. The kernel makes no parents by itself. Directories that the archive has are not
// added again.
func (a *archive) dir(name string) {
	if a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, typeDir|0o755, nil)
}

// file adds a file. If the archive has a file with the name, the call does nothing: programs share libraries.
func (a *archive) file(name string, mode os.FileMode, content []byte) {
	if a.files[name] {
		return
	}
	a.files[name] = true
	a.dir(path.Dir(name))
	a.entry(name, typeFile|uint32(mode.Perm()), content)
}

// symlink adds a symbolic link. Its content is the target.
func (a *archive) symlink(name, target string) {
	a.dir(path.Dir(name))
	a.entry(name, typeSymlink|0o777, []byte(target))
}

// copy adds a file of this machine.
func (a *archive) copy(name, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.file(name, info.Mode(), content)
	return a.err
}

// close writes the entry that ends an archive, and returns the first error of all calls.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}
