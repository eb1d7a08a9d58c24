package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/packet"
)

// Messages and attributes of linux/netfilter/nfnetlink_log.h, which x/sys lacks.
const (
	msgPacket = 0 // NFULNL_MSG_PACKET
	msgConfig = 1 // NFULNL_MSG_CONFIG

	attrPayload = 9  // NFULA_PAYLOAD
	attrPrefix  = 10 // NFULA_PREFIX

	configCommand   = 1 // NFULA_CFG_CMD: struct nfulnl_msg_config_cmd
	configMode      = 2 // NFULA_CFG_MODE: struct nfulnl_msg_config_mode
	configThreshold = 5 // NFULA_CFG_QTHRESH: packets that the kernel collects before it sends them

	commandBind = 1 // NFULNL_CFG_CMD_BIND
	copyPacket  = 2 // NFULNL_COPY_PACKET

	familyHeader = 4 // struct nfgenmsg: family, version, group
)

// Sizes, bytes. snapshot is enough for the headers of IPv6 with some extensions. The buffer holds some hundred packets.
const (
	snapshot      = 128
	receiveBuffer = 128 << 10
)

// maxRate is the number of packets that a Listener reads in a second. A process with the right to do so can make rules of its own
// that send to the group without a limit; the packets beyond the rate then stay in the kernel, which drops them.
const maxRate = 100

// ErrBusy means that another process has the group, such as a process of the pod.
var ErrBusy = errors.New("another process receives the packets of the NFLOG group there")

// Packet is a packet that a rule reported.
type Packet struct {
	Time    time.Time // of the receipt
	Prefix  string    // of the rule
	Headers packet.Headers
}

// Listener receives packets. Its methods must not run at the same time.
type Listener struct {
	conn *netlink.Conn
	lost int
}

// Open binds the group in the network namespace that the path is a handle of. The error wraps ErrBusy if another process has it.
func Open(path string, group uint16) (*Listener, error) {
	netns, err := nfnl.OpenForeign(path)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	conn, err := nfnl.DialKernel(netns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("socket of the NFLOG group: %w", err)
	}
	l := &Listener{conn: conn}
	if err := l.bind(group); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// bind takes the group, and sets how packets are sent: at once, and cut to the size of a snapshot.
func (l *Listener) bind(group uint16) error {
	if err := l.conn.SetReadBuffer(receiveBuffer); err != nil {
		return fmt.Errorf("receive buffer of the NFLOG group: %w", err)
	}
	mode := append(binary.BigEndian.AppendUint32(nil, snapshot), copyPacket, 0)
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: mode},
		{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)},
	})
	if err != nil {
		return err
	}
	body := append([]byte{unix.AF_UNSPEC, 0}, binary.BigEndian.AppendUint16(nil, group)...)
	_, err = l.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_ULOG<<8 | msgConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(body, attributes...),
	})
	// The acknowledgement may come behind the first packets. An error of the kernel is an error of Receive.
	for acknowledged := false; err == nil && !acknowledged; {
		var messages []netlink.Message
		messages, err = l.conn.Receive()
		for _, m := range messages {
			acknowledged = acknowledged || m.Header.Type == netlink.Error
		}
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EBUSY): // of another socket, or of this one (nfulnl_recv_config)
		return ErrBusy
	case err != nil:
		return fmt.Errorf("bind the NFLOG group %d: %w", group, err)
	}
	return nil
}

// Run calls take with each packet until the context ends or the socket fails. It then closes the Listener. The error is nil if the
// context has ended.
func (l *Listener) Run(ctx context.Context, take func(Packet)) error {
	stop := context.AfterFunc(ctx, func() {
		l.conn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // fails only on a closed socket
	})
	defer stop()
	defer l.conn.Close() //nolint:errcheck // nothing is left to do with it
	second, read := time.Now(), 0
	for {
		if read >= maxRate {
			select {
			case <-time.After(time.Until(second.Add(time.Second))):
			case <-ctx.Done():
			}
		}
		if time.Since(second) >= time.Second {
			second, read = time.Now(), 0
		}
		messages, err := l.conn.Receive()
		read += max(1, len(messages))
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			l.lost++
			continue
		case err != nil:
			return fmt.Errorf("receive reported packets: %w", err)
		}
		for _, m := range messages {
			if p, ok := parse(m); ok {
				take(p)
			}
		}
	}
}

// Lost returns how many times the kernel dropped packets because the buffer was full.
func (l *Listener) Lost() int { return l.lost }

// parse reads a message with a packet. It returns false for any other message, and for one that cannot be read.
func parse(m netlink.Message) (Packet, bool) {
	if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|msgPacket || len(m.Data) < familyHeader {
		return Packet{}, false
	}
	a, err := nfnl.ParseAttrs(m.Data[familyHeader:])
	if err != nil {
		return Packet{}, false
	}
	return Packet{Time: time.Now(), Prefix: a.Text(attrPrefix), Headers: packet.Parse(a[attrPayload])}, true
}
