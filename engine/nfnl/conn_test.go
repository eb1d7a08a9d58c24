package nfnl

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// names asks for the names of all tables of the family inet.
func names(t *testing.T, c *Conn) (list []string) {
	t.Helper()
	var m Messages
	m.BeginNFT(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_INET, Label{Op: "GETTABLE"})
	m.End()
	err := c.Ask(&m, NFTables|unix.NFT_MSG_NEWTABLE, func(a Attrs) error {
		list = append(list, a.Text(unix.NFTA_TABLE_NAME))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRefusedMessage: the error names the message, and no message of the batch is in force.
func TestRefusedMessage(t *testing.T) {
	c := dial(t)
	var m Messages
	m.BeginBatch(AnyGeneration)
	tables(&m, 1, 3)
	m.BeginNFT(unix.NFT_MSG_DELCHAIN, 0, unix.NFPROTO_INET, Label{Op: "DELCHAIN", Object: "missing"})
	m.Text(unix.NFTA_CHAIN_TABLE, "table-1")
	m.Text(unix.NFTA_CHAIN_NAME, "missing")
	m.End()
	m.EndBatch()
	err := c.Do(&m, nil)
	var refused *MessageError
	if !errors.Is(err, unix.ENOENT) || !errors.As(err, &refused) {
		t.Fatalf("error: %v", err)
	}
	if refused.Op != "DELCHAIN" || refused.Object != "missing" || refused.Index != 3 || refused.Offset == 0 {
		t.Errorf("error: %+v", refused)
	}
	if list := names(t, c); len(list) != 0 {
		t.Errorf("tables %v are in force", list)
	}
}

// TestGeneration: the kernel refuses a batch for tables with another generation.
func TestGeneration(t *testing.T) {
	c := dial(t)
	var m Messages
	m.BeginBatch(1 << 30)
	tables(&m, 1, 2)
	m.EndBatch()
	var refused *MessageError
	if err := c.Do(&m, nil); !errors.Is(err, unix.ERESTART) || !errors.As(err, &refused) || refused.Op != BatchBegin {
		t.Errorf("error: %v", err)
	}
}

// TestOptional: ENOENT is no error for a question with an optional object, and is an error for other questions.
func TestOptional(t *testing.T) {
	c := dial(t)
	for _, optional := range []bool{true, false} {
		var m Messages
		m.BeginNFT(unix.NFT_MSG_GETTABLE, 0, unix.NFPROTO_INET, Label{Op: "GETTABLE", Object: "missing", Optional: optional})
		m.Text(unix.NFTA_TABLE_NAME, "missing")
		m.End()
		err := c.Ask(&m, NFTables|unix.NFT_MSG_NEWTABLE, func(Attrs) error { return errors.New("the table exists") })
		if want := !optional; errors.Is(err, unix.ENOENT) != want || (err != nil) != want {
			t.Errorf("optional %t: %v", optional, err)
		}
	}
}

// TestStoppedDump: after visit has stopped a long dump, the next question gets its own answers.
func TestStoppedDump(t *testing.T) {
	c := dial(t)
	const count = 5_000
	var m Messages
	m.BeginBatch(AnyGeneration)
	tables(&m, 0, count)
	m.EndBatch()
	if err := c.Do(&m, nil); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	m.Reset()
	m.BeginNFT(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_INET, Label{Op: "GETTABLE"})
	m.End()
	if err := c.Ask(&m, NFTables|unix.NFT_MSG_NEWTABLE, func(Attrs) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error: %v", err)
	}
	if list := names(t, c); len(list) != count {
		t.Errorf("%d tables, want %d", len(list), count)
	}
}

// TestDumpOfSingleMessages: the kernel does not set NLM_F_MULTI in the SCTP associations of a dump. They are not the end of the dump.
func TestDumpOfSingleMessages(t *testing.T) {
	host, err := lab.ForTest(t).Bare("host")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(host.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	defer unix.Close(pair[0])
	if err := unix.Dup3(pair[0], c.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for i, typ := range []uint16{unix.SOCK_DIAG_BY_FAMILY, unix.SOCK_DIAG_BY_FAMILY, unix.NLMSG_DONE} {
		var m Buffer
		m.beginHeader(typ, 0)
		m.Raw([]byte{byte(i), 0, 0, 0})
		m.End()
		binary.NativeEndian.PutUint16(m.buf[6:], 0) // flags
		if i == 2 {
			copy(m.buf[messageHeader:], make([]byte, 4)) // the errno of NLMSG_DONE
		}
		if _, err := unix.Write(pair[1], m.buf); err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	err = c.Sockets(unix.AF_INET6, unix.IPPROTO_SCTP, 0, 1, func(b []byte) error {
		got = append(got, b[0])
		return nil
	})
	if err != nil || string(got) != "\x00\x01" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestNamespace: the handle leads to the namespace of the socket, and a Conn never opens the namespace of the process by path.
func TestNamespace(t *testing.T) {
	c := dial(t)
	netns, err := c.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	other, err := Dial(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var m Messages
	m.BeginBatch(AnyGeneration)
	tables(&m, 1, 2)
	m.EndBatch()
	if err := other.Do(&m, nil); err != nil {
		t.Fatal(err)
	}
	if list := names(t, c); len(list) != 1 || other.Port() == c.Port() {
		t.Errorf("tables %v; ports %d and %d", list, c.Port(), other.Port())
	}
	if _, err := Open("/proc/thread-self/ns/net"); !errors.Is(err, ErrOwnNamespace) {
		t.Errorf("own namespace: %v", err)
	}
	if _, err := Open("/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
}
