package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// groups is the parent of all memory cgroups of a run. It works with cgroup v2 and, where the memory controller belongs to
// it, with cgroup v1.
// dir is the path of the parent, below it is a cgroup for each process of the run. v2 says which of the two
// interfaces it has.
type groups struct {
	dir string
	v2  bool
}

// memoryV1 is where cgroup v1 has the hierarchy of the memory controller.
const memoryV1 = "/sys/fs/cgroup/memory"

// newGroups makes the parent cgroup.
func newGroups(name string) (*groups, error) {
	g, err := openGroups(name)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cgroup: %w", err)
	}
	// Children have the memory controller only if their parent passes it on.
	if g.v2 {
		err = os.WriteFile(filepath.Join(g.dir, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("enable the memory controller: %w", err), g.remove())
	}
	return g, nil
}

// findGroups returns a cgroup that can have children with the memory controller. In v1 it is the cgroup of this process.
// In v2 a cgroup with processes cannot have such children, so it is the parent of the cgroup of this process.
func findGroups() (*groups, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	// A line is "4:memory:/path" in v1 and "0::/path" in v2.
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) == 3 && parts[1] == "memory":
			return &groups{dir: filepath.Join(memoryV1, parts[2])}, nil
		case len(parts) == 3 && parts[0] == "0" && isCgroup2("/sys/fs/cgroup"):
			return &groups{dir: filepath.Join("/sys/fs/cgroup", filepath.Dir(parts[2])), v2: true}, nil
		}
	}
	return nil, errors.New("no cgroup has a memory controller")
}

// isCgroup2 reports whether a directory is a mount of cgroup v2.
func isCgroup2(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

// openGroups returns the parent that the supervisor made.
func openGroups(name string) (*groups, error) {
	g, err := findGroups()
	if err != nil {
		return nil, err
	}
	g.dir = filepath.Join(g.dir, name)
	return g, nil
}

// remove kills all processes in the cgroups, which are all of this run, and removes the cgroups.
// A process that was killed stays in its cgroup for a moment, so it tries for ten seconds.
func (g *groups) remove() error {
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		killAll(g.dir)
		removeEmpty(g.dir)
		if _, err = os.Stat(g.dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("the cgroup %s cannot be removed", g.dir)
}

// killAll kills the processes in the children of a cgroup.
func killAll(dir string) {
	lists, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs")) //nolint:errcheck // the pattern is valid
	for _, list := range lists {
		text, _ := os.ReadFile(list) //nolint:errcheck // the cgroup may be gone
		for _, pid := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(pid); err == nil {
				unix.Kill(n, unix.SIGKILL) //nolint:errcheck // it may have ended
			}
		}
	}
}

// removeEmpty removes a cgroup and its children unless processes are in them.
func removeEmpty(dir string) {
	children, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs")) //nolint:errcheck // the pattern is valid
	for _, c := range children {
		unix.Rmdir(filepath.Dir(c)) //nolint:errcheck // processes are in it, or it is gone
	}
	unix.Rmdir(dir) //nolint:errcheck // as above
}

// group is a memory cgroup.
type group struct {
	dir  string
	v2   bool
	peak *os.File // v2: the kernel resets the peak for each descriptor
}

// add makes a cgroup with a memory limit in bytes, and without swap.
func (g *groups) add(name string, limit int64) (*group, error) {
	c := &group{dir: filepath.Join(g.dir, name), v2: g.v2}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cgroup of %s: %w", name, err)
	}
	files := []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
	// In v1 the second limit is for memory and swap together, so equal limits leave no swap.
	values := []string{fmt.Sprint(limit), fmt.Sprint(limit)}
	if c.v2 {
		files, values = []string{"memory.max", "memory.swap.max"}, []string{fmt.Sprint(limit), "0"}
	}
	for i, file := range files {
		err := os.WriteFile(filepath.Join(c.dir, file), []byte(values[i]), 0)
		if i == 1 && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without swap
		}
		if err != nil {
			return nil, fmt.Errorf("limit the memory of %s: %w", name, err)
		}
	}
	return c, nil
}

// procs is the file to which a process writes its ID, or 0 for itself, to enter the cgroup.
func (c *group) procs() string { return filepath.Join(c.dir, "cgroup.procs") }

// number reads a file with a single number; -1 if there is none.
func (c *group) number(file string) int64 {
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// entry reads an entry of a file of names and numbers; -1 if there is none.
// The file has a line for each entry, such as "oom_kill 0" in memory.events.
func (c *group) entry(file, name string) int64 {
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] != name {
			continue
		}
		if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			return n
		}
	}
	return -1
}

// kernel returns the kernel memory that is charged to the cgroup now.
// Tables of the pods are charged to the process that writes them, the agent, so this has the kernel memory of all
// tables. It is -1 if the kernel does not tell.
func (c *group) kernel() int64 {
	if c.v2 {
		return c.entry("memory.stat", "kernel")
	}
	return c.number("memory.kmem.usage_in_bytes")
}

// highest returns the highest use of memory since resetHighest, kernel memory and page cache included.
// It is in bytes, or -1 if the kernel does not tell.
func (c *group) highest() int64 {
	if !c.v2 {
		return c.number("memory.max_usage_in_bytes")
	}
	if c.peak == nil {
		return c.number("memory.peak")
	}
	// A descriptor that was written to gives the peak since that write.
	text := make([]byte, 32)
	n, err := c.peak.ReadAt(text, 0)
	if n == 0 && err != nil {
		return -1
	}
	peak, err := strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64)
	if err != nil {
		return -1
	}
	return peak
}

// resetHighest starts a new highest. A v2 kernel before 6.12 cannot do so.
func (c *group) resetHighest() {
	if !c.v2 {
		os.WriteFile(filepath.Join(c.dir, "memory.max_usage_in_bytes"), []byte("0"), 0) //nolint:errcheck // then it stays
		return
	}
	if c.peak == nil {
		c.peak, _ = os.OpenFile(filepath.Join(c.dir, "memory.peak"), os.O_RDWR, 0) //nolint:errcheck // nil: read-only
	}
	if c.peak != nil {
		c.peak.Write([]byte("0")) //nolint:errcheck // then it stays
	}
}

// kills returns how often the kernel killed a process of the cgroup for its memory.
func (c *group) kills() int64 {
	if c.v2 {
		return c.entry("memory.events", "oom_kill")
	}
	return c.entry("memory.oom_control", "oom_kill")
}
