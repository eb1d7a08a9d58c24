package nfnl

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// forgedPart is a part of a message of nfnetlink that has no end, as another process sends it.
func forgedPart() []byte {
	b := binary.NativeEndian.AppendUint32(nil, messageHeader+familyHeader)
	b = binary.NativeEndian.AppendUint16(b, NFTables|unix.NFT_MSG_NEWTABLE)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	return append(b, make([]byte, messageHeader+familyHeader-len(b))...)
}

// TestForgedMessages: a process in the namespace cannot send to a socket of the agent there. Its messages to a multicast group that the
// socket has joined are errors, and those of the kernel arrive.
func TestForgedMessages(t *testing.T) {
	host, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	netns, err := os.Open(host.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	for _, family := range []int{unix.NETLINK_NETFILTER, unix.NETLINK_SOCK_DIAG, unix.NETLINK_ROUTE} {
		c, err := dialFamily(netns, family)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := sendTo(host, family, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.Port()}); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("family %d: a forged message is sent: %v", family, err)
		}
	}
	events, err := DialKernel(netns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := events.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		t.Fatal(err)
	}
	var buf [MaximumMessage]byte
	receive := func() (int, error) {
		if err := events.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return ReceiveEvents(events, buf[:])
	}
	group := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}
	if err := sendTo(host, unix.NETLINK_NETFILTER, group); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(); !errors.Is(err, ErrForged) {
		t.Errorf("a forged event: %v", err)
	}
	c, err := Dial(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var m Messages
	m.BeginBatch(AnyGeneration)
	tables(&m, 1, 2)
	m.EndBatch()
	if err := c.Do(&m, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := receive(); n == 0 || err != nil {
		t.Errorf("an event of the kernel: %d bytes, %v", n, err)
	}
	events.SetReadDeadline(time.Now().Add(-time.Second)) //nolint:errcheck // the next line shows it
	for {
		if _, err := ReceiveEvents(events, buf[:]); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the deadline: %v", err)
			}
			return
		}
	}
}

// sendTo sends a forged message from a new socket in the namespace of the host.
func sendTo(host *lab.Host, family int, to *unix.SockaddrNetlink) error {
	return host.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, forgedPart(), 0, to)
	})
}
