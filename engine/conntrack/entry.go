package conntrack

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// Messages and attributes of the kernel's connection tracking (linux/netfilter/nfnetlink_conntrack.h).
const (
	subsystem = unix.NFNL_SUBSYS_CTNETLINK << 8
	msgNew    = subsystem     // IPCTNL_MSG_CT_NEW
	msgGet    = subsystem | 1 // IPCTNL_MSG_CT_GET
	msgDelete = subsystem | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPv4Source = 1 // the number of the destination is higher by 1
	ctaIPv6Source = 3

	ctaProtoNumber      = 1
	ctaProtoSource      = 2
	ctaProtoDestination = 3

	ctaInfoTCP       = 1
	ctaTCPState      = 1
	ctaTCPFlagsOrig  = 4
	ctaTCPFlagsReply = 5

	ctaInfoSCTP     = 3
	ctaSCTPState    = 1
	ctaSCTPTagOrig  = 2
	ctaSCTPTagReply = 3
)

// Bits of an entry, and states of its protocol (linux/netfilter/nf_conntrack_common.h, _tcp.h, _sctp.h).
const (
	seenReply = 1 << 1 // IPS_SEEN_REPLY
	assured   = 1 << 2 // IPS_ASSURED: the kernel does not drop the entry for want of room
	confirmed = 1 << 3 // IPS_CONFIRMED
	natMask   = 3 << 4 // IPS_NAT_MASK

	tcpSynSent         = 1
	tcpSynReceived     = 2
	tcpEstablished     = 3
	tcpLiberal         = 1 << 3 // IP_CT_TCP_FLAG_BE_LIBERAL: the entry does not know the windows of the connection
	sctpCtEstablished  = 4
	protocolExperiment = 253 // for experiments (RFC 3692): pods send no packet with it
)

// Lifetimes of entries without packets, seconds: the kernel's defaults (nf_conntrack_proto_tcp.c, _udp.c, _sctp.c). The
// mark lives as long as the kernel's clock of 1,000 jiffies a second can count with an int.
const (
	lifeTCP     = 5 * 24 * 3600
	lifeOpening = 120
	lifeUDP     = 120
	lifeSCTP    = 210
	lifeMark    = 20 * 24 * 3600
)

// begin opens a message about the entry with the original direction from one end to the other.
func begin(m *nfnl.Messages, typ, flags uint16, op string, protocol uint8, from, to netip.AddrPort) {
	family := byte(unix.AF_INET)
	if from.Addr().Is6() {
		family = unix.AF_INET6
	}
	m.Begin(typ, flags, family, 0, nfnl.Label{Op: op, Object: from.String() + " to " + to.String()})
	tuple(m, ctaTupleOrig, protocol, from, to)
}

// tuple writes one direction of an entry as a nest, CTA_TUPLE_ORIG or CTA_TUPLE_REPLY: addresses, protocol and ports.
// The mark has a protocol that the kernel knows nothing about, and such a protocol has no ports.
func tuple(m *nfnl.Messages, typ uint16, protocol uint8, from, to netip.AddrPort) {
	source := uint16(ctaIPv4Source)
	if from.Addr().Is6() {
		source = ctaIPv6Source
	}
	whole := m.Nest(typ)
	ip := m.Nest(ctaTupleIP)
	m.Data(source, from.Addr().AsSlice())
	m.Data(source+1, to.Addr().AsSlice())
	m.EndNest(ip)
	proto := m.Nest(ctaTupleProto)
	m.Uint8(ctaProtoNumber, protocol)
	if protocol != protocolExperiment {
		m.Uint16(ctaProtoSource, from.Port())
		m.Uint16(ctaProtoDestination, to.Port())
	}
	m.EndNest(proto)
	m.EndNest(whole)
}

// create writes the message that makes the entry of a connection. The kernel refuses it with EEXIST if it has an entry.
func (f *flow) create(m *nfnl.Messages) {
	from, to := f.original()
	begin(m, msgNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "CT_NEW", f.protocol, from, to)
	tuple(m, ctaTupleReply, f.protocol, to, from)
	status, life := uint32(seenReply|assured|confirmed), uint32(lifeUDP)
	switch f.protocol {
	case unix.IPPROTO_TCP:
		state := uint8(tcpEstablished)
		switch f.state {
		case stateEstablished:
			life = lifeTCP
		case stateSynSent:
			status, life, state = confirmed, lifeOpening, tcpSynSent
		case stateSynRecv, stateNewSynRecv:
			status, life, state = seenReply|confirmed, lifeOpening, tcpSynReceived
		default: // an end has closed
			life = lifeOpening
		}
		info, tcp := m.Nest(ctaProtoInfo), m.Nest(ctaInfoTCP)
		m.Uint8(ctaTCPState, state)
		m.Data(ctaTCPFlagsOrig, []byte{tcpLiberal, tcpLiberal}) // struct nf_ct_tcp_flags: flags, mask
		m.Data(ctaTCPFlagsReply, []byte{tcpLiberal, tcpLiberal})
		m.EndNest(tcp)
		m.EndNest(info)
	case unix.IPPROTO_SCTP:
		life = lifeSCTP
		orig, reply := f.tags.remote, f.tags.local
		if f.isIncoming {
			orig, reply = reply, orig
		}
		info, sctp := m.Nest(ctaProtoInfo), m.Nest(ctaInfoSCTP)
		m.Uint8(ctaSCTPState, sctpCtEstablished)
		m.Uint32(ctaSCTPTagOrig, orig)
		m.Uint32(ctaSCTPTagReply, reply)
		m.EndNest(sctp)
		m.EndNest(info)
	}
	m.Uint32(ctaStatus, status)
	m.Uint32(ctaTimeout, life)
	m.End()
}

// entry is the part of an entry that shows which end opened the connection.
type entry struct {
	protocol uint8
	from, to netip.AddrPort // the original direction
	status   uint32
}

// parseEntry reads the attributes of a message about an entry.
func parseEntry(a nfnl.Attrs) (e entry, err error) {
	e.status = a.Uint32(ctaStatus)
	parts, err := nfnl.ParseAttrs(a[ctaTupleOrig])
	if err != nil {
		return e, err
	}
	ip, err := nfnl.ParseAttrs(parts[ctaTupleIP])
	if err != nil {
		return e, err
	}
	proto, err := nfnl.ParseAttrs(parts[ctaTupleProto])
	if err != nil {
		return e, err
	}
	source := uint16(ctaIPv4Source)
	if _, ok := ip[ctaIPv6Source]; ok {
		source = ctaIPv6Source
	}
	from, _ := netip.AddrFromSlice(ip[source])
	to, _ := netip.AddrFromSlice(ip[source+1])
	e.from = netip.AddrPortFrom(from, proto.Uint16(ctaProtoSource))
	e.to = netip.AddrPortFrom(to, proto.Uint16(ctaProtoDestination))
	if number := proto[ctaProtoNumber]; len(number) > 0 {
		e.protocol = number[0]
	}
	return e, nil
}

// The ends of the mark.
var (
	markFrom = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	markTo   = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 2}), 0)
)

// createMark writes the message that makes the mark, or leaves it as it is.
func createMark(m *nfnl.Messages) {
	begin(m, msgNew, unix.NLM_F_CREATE, "CT_NEW", protocolExperiment, markFrom, markTo)
	tuple(m, ctaTupleReply, protocolExperiment, markTo, markFrom)
	m.Uint32(ctaStatus, seenReply|assured|confirmed)
	m.Uint32(ctaTimeout, lifeMark)
	m.End()
}
