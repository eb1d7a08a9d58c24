package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// link returns the name of the interface with the index, or nothing for index 0. It reads all names again when an index is
// new: an interface may appear while packets are traced.
func (t *Tracer) link(index uint32) (string, error) {
	if index == 0 {
		return "", nil
	}
	if t.links[index] == "" {
		links, err := readLinks(t.netns)
		if err != nil {
			return "", fmt.Errorf("names of the interfaces: %w", err)
		}
		t.links = links
	}
	if name := t.links[index]; name != "" {
		return name, nil
	}
	return fmt.Sprintf("interface %d", index), nil
}

// readLinks dumps the interfaces of a network namespace (rtnetlink(7), struct ifinfomsg) and returns their names by
// index.
func readLinks(netns *os.File) (_ map[uint32]string, err error) {
	conn, err := nfnl.DialKernel(netns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		return nil, err
	}
	links := map[uint32]string{}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		index := binary.NativeEndian.Uint32(m.Data[4:])
		err := nfnl.EachAttr(m.Data[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) {
			if typ == unix.IFLA_IFNAME {
				links[index] = strings.TrimRight(string(value), "\x00")
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return links, nil
}
