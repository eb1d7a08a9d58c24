package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages of the kernel's connection tracking (enum cntl_msg_types in linux/netfilter/nfnetlink_conntrack.h).
const (
	ctNew    = 0
	ctGet    = 1
	ctDelete = 2
)

// Attributes (enums of the same header).
const (
	tupleOrig  = 1 // CTA_TUPLE_ORIG
	tupleReply = 2 // CTA_TUPLE_REPLY
	status     = 3 // CTA_STATUS
	protoInfo  = 4 // CTA_PROTOINFO
	timeout    = 7 // CTA_TIMEOUT

	tupleIP    = 1 // CTA_TUPLE_IP
	tupleProto = 2 // CTA_TUPLE_PROTO
	ipv4Src    = 1 // CTA_IP_V4_SRC; the destination has the next number, and the addresses of IPv6 the two after that
	ipv6Src    = 3
	protoNum   = 1 // CTA_PROTO_NUM
	protoSrc   = 2 // CTA_PROTO_SRC_PORT
	protoDst   = 3 // CTA_PROTO_DST_PORT

	infoTCP       = 1 // CTA_PROTOINFO_TCP
	tcpState      = 1 // CTA_PROTOINFO_TCP_STATE
	tcpFlagsOrig  = 4 // CTA_PROTOINFO_TCP_FLAGS_ORIGINAL
	tcpFlagsReply = 5 // CTA_PROTOINFO_TCP_FLAGS_REPLY
)

// Bits and states of entries (linux/netfilter/nf_conntrack_common.h and nf_conntrack_tcp.h).
const (
	seenReply = 1 << 1 // IPS_SEEN_REPLY
	assured   = 1 << 2 // IPS_ASSURED
	confirmed = 1 << 3 // IPS_CONFIRMED
	isNAT     = 3 << 4 // IPS_NAT_MASK

	trackSynSent     = 1
	trackSynRecv     = 2
	trackEstablished = 3

	beLiberal = 1 << 3 // IP_CT_TCP_FLAG_BE_LIBERAL: the entry does not know the windows of the connection
)

// lifetimes of entries until the next packet, in seconds: the kernel's own defaults.
const (
	lifeTCP     = 5 * 24 * 3600
	lifeOpening = 120
	lifeUDP     = 120
)

// message returns a message about the entry of a connection, whose original direction is from one end to the other.
func message(kind uint16, flags netlink.HeaderFlags, protocol uint8, from, to netip.AddrPort, rest func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(tupleOrig, tuple(protocol, from, to))
	if rest != nil {
		e.Nested(tupleReply, tuple(protocol, to, from))
		rest(e)
	}
	attributes, err := e.Encode()
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode the connection from %s to %s: %w", from, to, err)
	}
	family := byte(unix.AF_INET)
	if from.Addr().Is6() {
		family = unix.AF_INET6
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}, nil
}

func tuple(protocol uint8, from, to netip.AddrPort) func(*netlink.AttributeEncoder) error {
	return func(e *netlink.AttributeEncoder) error {
		e.Nested(tupleIP, func(e *netlink.AttributeEncoder) error {
			source := uint16(ipv4Src)
			if from.Addr().Is6() {
				source = ipv6Src
			}
			e.Bytes(source, from.Addr().AsSlice())
			e.Bytes(source+1, to.Addr().AsSlice())
			return nil
		})
		e.Nested(tupleProto, func(e *netlink.AttributeEncoder) error {
			e.Uint8(protoNum, protocol)
			e.Uint16(protoSrc, from.Port())
			e.Uint16(protoDst, to.Port())
			return nil
		})
		return nil
	}
}

// create returns the message that makes the entry of a connection. It fails with EEXIST if the kernel has an entry.
func (f *flow) create() (netlink.Message, error) {
	from, to := f.original()
	return message(ctNew, netlink.Create|netlink.Excl, f.protocol, from, to, func(e *netlink.AttributeEncoder) {
		bits, life, state := uint32(seenReply|assured|confirmed), uint32(lifeUDP), uint8(trackEstablished)
		if f.protocol == unix.IPPROTO_TCP {
			switch f.state {
			case stateEstablished:
				life = lifeTCP
			case stateSynSent:
				bits, life, state = confirmed, lifeOpening, trackSynSent
			case stateSynRecv, stateNewSynRecv:
				bits, life, state = seenReply|confirmed, lifeOpening, trackSynRecv
			default: // one end has closed
				life = lifeOpening
			}
			e.Nested(protoInfo, func(e *netlink.AttributeEncoder) error {
				e.Nested(infoTCP, func(e *netlink.AttributeEncoder) error {
					e.Uint8(tcpState, state)
					e.Bytes(tcpFlagsOrig, []byte{beLiberal, beLiberal}) // the flags, and the mask of them
					e.Bytes(tcpFlagsReply, []byte{beLiberal, beLiberal})
					return nil
				})
				return nil
			})
		}
		e.Uint32(status, bits)
		e.Uint32(timeout, life)
	})
}

// entry is the part of the kernel's entry that tells whether it is right.
type entry struct {
	from, to netip.AddrPort // of the original direction
	status   uint32
}

// parseEntry reads a message of the kinds ctNew and ctGet.
func parseEntry(data []byte) (entry, error) {
	var e entry
	if len(data) < 4 {
		return e, fmt.Errorf("a conntrack message of %d bytes", len(data))
	}
	d, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return e, err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case tupleOrig:
			d.Nested(e.parseTuple)
		case status:
			e.status = d.Uint32()
		}
	}
	return e, d.Err()
}

func (e *entry) parseTuple(d *netlink.AttributeDecoder) error {
	var source, destination netip.Addr
	var sourcePort, destinationPort uint16
	for d.Next() {
		switch d.Type() {
		case tupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					addr, _ := netip.AddrFromSlice(d.Bytes())
					if d.Type() == ipv4Src || d.Type() == ipv6Src {
						source = addr
					} else {
						destination = addr
					}
				}
				return nil
			})
		case tupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case protoSrc:
						sourcePort = d.Uint16()
					case protoDst:
						destinationPort = d.Uint16()
					}
				}
				return nil
			})
		}
	}
	e.from, e.to = netip.AddrPortFrom(source, sourcePort), netip.AddrPortFrom(destination, destinationPort)
	return nil
}
