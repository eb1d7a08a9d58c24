package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// flow is a connection with a real socket at each end. It stays open while policies and agents come and go.
//
// At each quiet point the prober sends one packet of the flow in each direction, by a raw socket: a datagram of UDP, a TCP
// segment that repeats bytes which the other end has acknowledged long ago, or a heartbeat of SCTP. So a packet that the
// rules drop leaves no trace in the sockets, and no sender waits before it tries again.
type flow struct {
	from, to   Terminal // from opened the flow
	proto      oracle.Protocol
	sport      uint16 // of the opener
	port       uint16 // of the other end
	otherFirst bool   // the end that did not open the flow sends first at each quiet point
	sockets    *lab.Flow
	next       [2]uint32 // of TCP: the sequence numbers that the opener and the other end will use next
	tags       [2]uint32 // of SCTP: the verification tags of the packets that the opener and the other end send
}

// packet returns the first packet of a direction as the Oracle sees it: the opener's direction, or with reply the other
// direction.
func (f *flow) packet(reply bool) oracle.Packet {
	if reply {
		return oracle.Packet{From: f.to.Endpoint(), To: f.from.Endpoint(), Proto: f.proto, Port: f.sport}
	}
	return oracle.Packet{From: f.from.Endpoint(), To: f.to.Endpoint(), Proto: f.proto, Port: f.port}
}

// probe returns a probe of a direction. It is one-way: no answer is waited for on an open connection.
// Its number is given when it is sent.
func (f *flow) probe(reply bool) *Probe {
	p := &Probe{From: f.from, To: f.to, Proto: f.proto, Port: f.port, OneWay: true, flow: f, reply: reply}
	if reply {
		p.From, p.To, p.Port = f.to, f.from, f.sport
	}
	return p
}

// appendPacket appends the packet of a direction to b, with the number of its probe.
// b is returned with the packet behind it.
func (f *flow) appendPacket(b []byte, reply bool, id uint32) []byte {
	from, to, sport, dport, own, other := f.from.addr, f.to.addr, f.sport, f.port, f.next[0], f.next[1]
	if reply {
		from, to, sport, dport, own, other = to, from, dport, sport, other, own
	}
	switch {
	case f.proto == oracle.SCTP && reply:
		return appendHeartbeat(b, from, to, sport, dport, f.tags[1], id)
	case f.proto == oracle.SCTP:
		return appendHeartbeat(b, from, to, sport, dport, f.tags[0], id)
	case f.proto == oracle.TCP:
		return appendSegment(b, from, to, sport, dport, own-repeated, other, id)
	}
	return appendPacket(b, from, to, f.proto, sport, dport, id)
}

// failure returns a probe of an ICMP error from the other end about a packet of the opener. Connection tracking calls
// the error related, so it passes whatever the policies say.
func (f *flow) failure() *Probe {
	related := oracle.Ruling{Allowed: true, Why: "ICMP errors of a connection are related to it"}
	return &Probe{From: f.to, To: f.from, Proto: oracle.ICMP, OneWay: true, flow: f, shape: oracle.AsError, Egress: related, Ingress: related}
}

// openFlow opens a flow between two terminals. Both ends exchange data before it returns, so the connection is
// established for connection tracking.
func (f *Fabric) openFlow(ctx context.Context, from, to Terminal, s service, otherFirst bool) error {
	kinds := map[oracle.Protocol]lab.FlowKind{oracle.TCP: lab.FlowTCP, oracle.UDP: lab.FlowUDP, oracle.SCTP: lab.FlowSCTP}
	ends := []*host{from.host, to.host}
	if err := f.drain(ends); err != nil { // what came earlier must not be taken for the packets that carry the tags of SCTP
		return err
	}
	for _, h := range ends { // an address may have moved from another host
		if err := h.forgetNeighbors(); err != nil {
			return err
		}
	}
	sockets, err := lab.OpenFlow(ctx, lab.FlowSpec{
		Kind: kinds[s.proto], From: from.host.Host, To: to.host.Host, Source: from.addr, Target: netip.AddrPortFrom(to.addr, s.port),
		SourceDevice: from.socketDevice(), TargetDevice: to.socketDevice(),
	})
	if err != nil {
		return err
	}
	made := &flow{from: from, to: to, proto: s.proto, sport: sockets.Source.Port(), port: s.port, otherFirst: otherFirst, sockets: sockets}
	f.flows = append(f.flows, made)
	switch s.proto {
	case oracle.UDP:
		return nil
	case oracle.SCTP:
		return made.readTags()
	}
	for i, end := range []lab.FlowEnd{sockets.Opener, sockets.Other} {
		if made.next[i], err = nextSequence(end); err != nil {
			return fmt.Errorf("read the state of a connection: %w", err)
		}
	}
	return nil
}

// readTags reads the tags that both ends have chosen, from the packets that have opened the flow.
// The raw sockets of both hosts have seen the packets: the INIT has the tag of packets to the opener, the INIT ACK the
// tag of packets to the other end.
func (f *flow) readTags() error {
	err := f.to.host.drain(func(_ *host, _ string, s sighting) {
		if s.kind == arrival && s.port == f.sport {
			f.tags[1] = s.id
		}
	})
	if err == nil {
		err = f.from.host.drain(func(_ *host, _ string, s sighting) {
			if s.kind == accepted && s.port == f.port {
				f.tags[0] = s.id
			}
		})
	}
	if err == nil && (f.tags[0] == 0 || f.tags[1] == 0) {
		err = errors.New("read the tags of a connection of SCTP: they were not seen")
	}
	return err
}

// nextSequence waits until the other end has acknowledged all bytes, and returns the sequence number of the next byte.
// A segment that repeats older bytes is then sure to be a duplicate.
// The socket stays as it was.
func nextSequence(end lab.FlowEnd) (uint32, error) {
	raw, err := end.SyscallConn()
	if err != nil {
		return 0, err
	}
	var next int
	var inner error
	err = raw.Control(func(fd uintptr) {
		s := int(fd)
		// TIOCOUTQ counts the bytes that are not acknowledged yet.
		for deadline := time.Now().Add(patience); ; time.Sleep(pollEvery) {
			unacknowledged, err := unix.IoctlGetInt(s, unix.TIOCOUTQ)
			if err == nil && unacknowledged > 0 && time.Now().After(deadline) {
				err = fmt.Errorf("%d bytes are not acknowledged", unacknowledged)
			}
			if err != nil {
				inner = err
				return
			}
			if unacknowledged == 0 {
				break
			}
		}
		// Only a socket in repair mode (TCP_REPAIR, include/uapi/linux/tcp.h) tells its sequence number. Leaving the
		// mode in the ordinary way would send a window probe, a packet that no probe accounts for.
		const sendQueue, offWithoutProbe = 2, -1 // TCP_SEND_QUEUE, TCP_REPAIR_OFF_NO_WP
		inner = errors.Join(
			unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1),
			unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, sendQueue))
		if inner == nil {
			next, inner = unix.GetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		}
		inner = errors.Join(inner, unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe))
	})
	return uint32(next), errors.Join(err, inner)
}

// dropFlows closes the flows whose address or interface has gone at either end.
func (f *Fabric) dropFlows() error {
	if len(f.flows) == 0 {
		return nil
	}
	terminals := f.Terminals()
	var errs []error
	f.flows = slices.DeleteFunc(f.flows, func(l *flow) bool {
		if slices.Contains(terminals, l.from) && slices.Contains(terminals, l.to) {
			return false
		}
		errs = append(errs, l.sockets.Close())
		return true
	})
	return errors.Join(errs...)
}

// forgetConnections deletes all entries of connection tracking. It closes the flows of UDP: the kernel would judge
// their next packet like a first packet, and other probes are about first packets already.
func (f *Fabric) forgetConnections() error {
	var errs []error
	f.flows = slices.DeleteFunc(f.flows, func(l *flow) bool {
		if l.proto == oracle.UDP {
			errs = append(errs, l.sockets.Close())
		}
		return l.proto == oracle.UDP
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, h := range f.present() {
		if err := h.pod.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			return fmt.Errorf("flush connection tracking: %w", err)
		}
	}
	return nil
}

// hasMark reports whether connection tracking has the entry by which the agent notices that entries were deleted: protocol
// 253 from 127.0.0.1 to 127.0.0.2.
// The test reads the entry by its protocol number only, and so does not depend on the agent's code.
func (h *host) hasMark() (found bool, err error) {
	err = h.pod.Do(func() error {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		found = slices.ContainsFunc(entries, func(e *netlink.ConntrackFlow) bool { return e.Forward.Protocol == 253 })
		return err
	})
	return found, err
}

// open opens connections of each service between all terminals that an event names. It opens each of them twice: for
// either end that is to send first. It leaves out connections that the policies do not allow. In random cases it also
// leaves out those of virtual machines: after a flush, or with the first policy, the kernel judges their next packet
// like a first packet.
func (r *play) open(ctx context.Context, e Expectation) error {
	// The Oracle's verdict holds only once the agent has applied all policies.
	if err := r.settle(ctx); err != nil {
		return err
	}
	terminals := r.fabric.Terminals()
	for _, from := range terminals {
		for _, to := range terminals {
			if from.wire != to.wire || from.host == to.host || from.addr.Is4() != to.addr.Is4() || !e.From.is(from) || !e.To.is(to) ||
				from.isOnSharedWire() || to.isOnSharedWire() || r.Share > 0 && (from.device() == Bridge || to.device() == Bridge) {
				continue
			}
			for _, s := range e.Services {
				first := oracle.Packet{From: from.Endpoint(), To: to.Endpoint(), Proto: s.proto, Port: s.port}
				out, in := r.oracle.Judge(first)
				if r.foreign || !out.Allowed || !in.Allowed {
					continue
				}
				for _, otherFirst := range []bool{false, true} {
					if err := r.fabric.openFlow(ctx, from, to, s, otherFirst); err != nil {
						return fmt.Errorf("%w: %w, but it is allowed: %s; %s", ErrFault, err, out.Why, in.Why)
					}
				}
			}
		}
	}
	return nil
}

// compareFlows sends the packets of all flows, and returns their probes with the Oracle's verdicts. It sends nothing
// where the Oracle knows too little: with a foreign table, and while the agent may not have restored the entries of
// connection tracking. It also sends nothing when only certain packets are wanted.
func (r *play) compareFlows() (probes []*Probe, err error) {
	if len(r.fabric.flows) == 0 || r.foreign || r.forgotten || len(r.Only) > 0 {
		return nil, nil
	}
	// The first round has a packet from the end of each flow that is to send first, the second round a packet from the
	// other end.
	for _, first := range []bool{true, false} {
		var sent []*Probe
		for _, f := range r.fabric.flows {
			p := f.probe(f.otherFirst == first)
			p.Egress, p.Ingress = r.oracle.JudgeFlow(f.packet(false), f.packet(true), p.reply)
			sent = append(sent, p)
			if !first {
				sent = append(sent, f.failure())
			}
		}
		if err := r.fabric.Send(sent); err != nil {
			return nil, err
		}
		probes = append(probes, sent...)
	}
	return probes, nil
}

// awaitEntries waits until the agent has noticed the loss of connection tracking entries and has restored its mark in
// each isolated pod.
// Pods that no policy isolates need no mark.
func (r *play) awaitEntries(ctx context.Context) error {
	for _, h := range r.fabric.present() {
		if h == r.fabric.outside || !r.oracle.Enforced(h.key) || !r.oracle.Isolated(h.key) {
			continue
		}
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			found, err := h.hasMark()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil || found {
				if err != nil {
					return err
				}
				break
			}
			if time.Since(start) > patience {
				return fmt.Errorf("%w: it has not made the entries of connections in %s again within %s", ErrFault, h.Name, patience)
			}
		}
	}
	r.forgotten = false
	return nil
}
