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
)

// flow is a connection with a real socket at each end. It stays open while policies and agents come and go.
//
// At each quiet point the prober sends one packet of the flow in each direction, by a raw socket: a datagram of UDP, a TCP
// segment that repeats bytes which the other end has acknowledged long ago, or a heartbeat of SCTP. So a packet that the
// rules drop leaves no trace in the sockets, and no sender waits before it tries again.
type flow struct {
	from, to   Terminal // from opened it
	proto      Protocol
	sport      uint16 // of the opener
	port       uint16 // of the other end
	otherFirst bool   // the end that did not open the flow sends first
	sockets    *lab.Flow
	next       [2]uint32 // of TCP: the sequence numbers that the opener and the other end will use next
	tags       [2]uint32 // of SCTP: the verification tags of the packets that the opener and the other end send
}

// packet returns the packet of the direction in which the flow was opened, or of the other direction.
func (f *flow) packet(reply bool) Packet {
	if reply {
		return Packet{f.to.Endpoint(), f.from.Endpoint(), f.proto, f.sport, plain}
	}
	return Packet{f.from.Endpoint(), f.to.Endpoint(), f.proto, f.port, plain}
}

// probe returns a probe of a direction.
func (f *flow) probe(reply bool) *Probe {
	p := &Probe{From: f.from, To: f.to, Proto: f.proto, Port: f.port, OneWay: true, flow: f, reply: reply}
	if reply {
		p.From, p.To, p.Port = f.to, f.from, f.sport
	}
	return p
}

// appendPacket appends the packet of a direction.
func (f *flow) appendPacket(b []byte, reply bool, id uint32) []byte {
	from, to, sport, dport, own, other := f.from.addr, f.to.addr, f.sport, f.port, f.next[0], f.next[1]
	if reply {
		from, to, sport, dport, own, other = to, from, dport, sport, other, own
	}
	switch {
	case f.proto == SCTP && reply:
		return appendHeartbeat(b, from, to, sport, dport, f.tags[1], id)
	case f.proto == SCTP:
		return appendHeartbeat(b, from, to, sport, dport, f.tags[0], id)
	case f.proto == TCP:
		return appendSegment(b, from, to, sport, dport, own-repeated, other, id)
	}
	return appendPacket(b, from, to, f.proto, sport, dport, id)
}

// failure returns a probe of an ICMP error from the other end about a packet of the opener. It belongs to the connection.
func (f *flow) failure() *Probe {
	related := Ruling{true, "ICMP errors of a connection are related to it"}
	return &Probe{From: f.to, To: f.from, Proto: ICMP, OneWay: true, flow: f, shape: asError, Egress: related, Ingress: related}
}

// openFlow opens a flow between two terminals.
func (f *Fabric) openFlow(ctx context.Context, from, to Terminal, s service, otherFirst bool) error {
	kinds := map[Protocol]lab.FlowKind{TCP: lab.FlowTCP, UDP: lab.FlowUDP, SCTP: lab.FlowSCTP}
	ends := []*host{from.host, to.host}
	if err := f.drain(ends); err != nil { // the tags of SCTP are to come
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
	case UDP:
		return nil
	case SCTP:
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

// nextSequence waits until the other end has acknowledged everything, and returns the sequence number of the next byte.
func nextSequence(end lab.FlowEnd) (uint32, error) {
	raw, err := end.SyscallConn()
	if err != nil {
		return 0, err
	}
	var next int
	var inner error
	err = raw.Control(func(fd uintptr) {
		s := int(fd)
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

// dropFlows closes the flows that have lost an end.
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

// forgetConnections deletes all entries of connection tracking. It closes the flows of UDP: their next packet would be judged
// like a first packet, as other probes are.
func (f *Fabric) forgetConnections() error {
	var errs []error
	f.flows = slices.DeleteFunc(f.flows, func(l *flow) bool {
		if l.proto == UDP {
			errs = append(errs, l.sockets.Close())
		}
		return l.proto == UDP
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
func (h *host) hasMark() (found bool, err error) {
	err = h.pod.Do(func() error {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		found = slices.ContainsFunc(entries, func(e *netlink.ConntrackFlow) bool { return e.Forward.Protocol == 253 })
		return err
	})
	return found, err
}

// open opens a connection of each service, twice, between all terminals that an event names: once for each end that is to
// send first. It leaves out connections that the policies do not allow, and in random cases those of virtual machines: a flush
// or the first policy makes the kernel judge their next packet like a first packet.
func (r *play) open(ctx context.Context, e Expectation) error {
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
				first := Packet{from.Endpoint(), to.Endpoint(), s.proto, s.port, plain}
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

// compareFlows sends the packets of all flows and compares their fate.
func (r *play) compareFlows() (probes []*Probe, err error) {
	if len(r.fabric.flows) == 0 || r.foreign || r.forgotten || len(r.Only) > 0 {
		return nil, nil
	}
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

// awaitEntries waits until the agent has noticed that entries of connection tracking were deleted.
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
