package engine

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// answering replaces the Engine's socket by a queue with one datagram, until stop. The kernel does not get the batches and
// questions of the Engine meanwhile.
func answering(t *testing.T, e *Engine, datagram []byte) (stop func()) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(datagram) > 0 {
		if _, err := unix.Write(pair[1], datagram); err != nil {
			t.Fatal(err)
		}
	}
	socket := e.transport.FD()
	kept, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	replaceFD(t, socket, pair[0])
	return func() {
		replaceFD(t, socket, kept)
		for _, fd := range append(pair[:], kept) {
			if err := unix.Close(fd); err != nil {
				t.Error(err)
			}
		}
	}
}

// replaceFD makes the descriptor stand for the file of another descriptor.
func replaceFD(t *testing.T, fd, other int) {
	t.Helper()
	if err := unix.Dup3(other, fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}

// errorAnswer is the kernel's answer to message number seq: NLMSG_ERROR and the header of that message.
func errorAnswer(seq uint32, errno unix.Errno) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+4+unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(b[8:], seq)
	binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr:], uint32(-int32(errno)))
	return b
}

// doneAnswer is the end of a dump.
func doneAnswer(errno unix.Errno) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_DONE)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_MULTI)
	binary.NativeEndian.PutUint32(b[8:], 1)
	binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr:], uint32(-int32(errno)))
	return b
}

// TestKernelOutOfResources: what the kernel cannot do for lack of memory or files is an ordinary error: the old rules
// stay, nothing is taken for known, nothing is leaked, and the next Apply does the work.
func TestKernelOutOfResources(t *testing.T) {
	l := lab.ForTest(t)
	want := isolated(parseAddrs("10.0.0.2"), 80)
	newSet := NewRuleset(slices.Concat(want.Sets, peerSets(1, 1)), want.Chains) // in a batch before the change
	for name, tt := range map[string]struct {
		want   Ruleset
		answer []byte
		cause  error
	}{
		"no memory for a message":   {want, errorAnswer(2, unix.ENOMEM), unix.ENOMEM},
		"no memory for a set":       {newSet, errorAnswer(2, unix.ENOMEM), unix.ENOMEM},
		"no memory for the commit":  {want, errorAnswer(1, unix.ENOMEM), unix.ENOMEM},
		"too many references":       {want, errorAnswer(2, unix.EMFILE), unix.EMFILE},
		"no memory for the answers": {want, nil, nfnl.ErrNoAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			h, e := pod(t, l, "pod")
			apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
			before, files := listTable(t, h), openFiles(t)
			stop := answering(t, e, tt.answer)
			err := e.Apply(t.Context(), tt.want)
			stop()
			var applyErr *ApplyError
			if !errors.Is(err, tt.cause) || !errors.As(err, &applyErr) || e.Stats().Refused != 1 {
				t.Errorf("error: %v", err)
			}
			if e.have != nil {
				t.Error("the table counts as known")
			}
			if diff := cmp.Diff(before, listTable(t, h)); diff != "" {
				t.Errorf("rules in force changed:\n%s", diff)
			}
			apply(t, e, tt.want)
			if diff := cmp.Diff(normal(rendered(t, tt.want)), normal(listTable(t, h))); diff != "" {
				t.Errorf("after the next Apply (-rendered +nft):\n%s", diff)
			}
			if now := openFiles(t); now != files {
				t.Errorf("%d open files, and before %d", now, files)
			}
		})
	}
}

// TestDumpOutOfMemory: a dump that the kernel could not finish is not taken for the whole table.
func TestDumpOutOfMemory(t *testing.T) {
	_, e := pod(t, lab.ForTest(t), "pod")
	apply(t, e, isolated(parseAddrs("10.0.0.1"), 80))
	stop := answering(t, e, doneAnswer(unix.ENOMEM))
	_, err := e.Counts()
	stop()
	if !errors.Is(err, unix.ENOMEM) {
		t.Errorf("error: %v", err)
	}
	if counts, err := e.Counts(); err != nil || len(counts) == 0 {
		t.Errorf("%d counters, %v", len(counts), err)
	}
}

// withoutFiles runs f while no file can be opened: EMFILE.
func withoutFiles(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	highest := 0
	for fd := range 4096 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			highest = fd
		}
	}
	var fill []int // the gaps below the highest descriptor
	none := unix.Rlimit{Cur: uint64(highest + 1), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	for {
		fd, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EMFILE) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		fill = append(fill, fd)
	}
	f()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fill {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
}

// TestNoFiles: without a file descriptor no Engine is opened, and an Engine that needs another socket is closed: it
// takes nothing for an answer that belongs to its old socket.
func TestNoFiles(t *testing.T) {
	h, e := pod(t, lab.ForTest(t), "pod")
	want := isolated(parseAddrs("10.0.0.1"), 80)
	apply(t, e, want)
	files := openFiles(t)
	withoutFiles(t, func() {
		if _, err := Open("default/pod", h.NetNS(), Options{}); !errors.Is(err, unix.EMFILE) {
			t.Errorf("open: %v", err)
		}
		if err := e.transport.Reopen(); !errors.Is(err, unix.EMFILE) {
			t.Errorf("reopen: %v", err)
		}
		if err := e.Apply(t.Context(), isolated(parseAddrs("10.0.0.2"), 80)); !errors.Is(err, unix.EBADF) {
			t.Errorf("apply: %v", err)
		}
	})
	if now := openFiles(t); now != files-1 {
		t.Errorf("%d open files, and before %d with a socket that is closed", now, files)
	}
	next := openEngine(t, h)
	apply(t, next, want)
	if s := next.Stats(); s.Batches != 0 {
		t.Errorf("%d batches for a table that was not changed", s.Batches)
	}
}

// TestReopen: a new socket is in the same namespace, and the Engine goes on with it.
func TestReopen(t *testing.T) {
	h, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	e := own(t, h)
	want := isolated(parseAddrs("10.0.0.1"), 80)
	apply(t, e, want)
	files, port := openFiles(t), e.transport.Port()
	if err := e.transport.Reopen(); err != nil {
		t.Fatal(err)
	}
	if now := openFiles(t); now != files || e.transport.Port() == port {
		t.Errorf("%d open files, and before %d; port %d, and before %d", now, files, e.transport.Port(), port)
	}
	e.have.generation = math.MaxUint32 // somebody has changed another table since
	finds(t, "another socket", e, AsApplied)
	if e.have.elsewhere || e.have.flags != owned {
		t.Errorf("the table has no owner: %+v", e.have)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
