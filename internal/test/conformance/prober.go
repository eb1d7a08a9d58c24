package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is a packet, with the expected and the observed verdict.
type Probe struct {
	From, To Terminal
	Proto    Protocol
	Port     uint16
	OneWay   bool // no answer is waited for: it would go astray, since the source is not the sender's, or another way

	flow  *flow // that the packet belongs to; nil: it is the first packet of a new connection
	reply bool  // it goes against the direction in which its flow was opened
	shape shape

	toMany bool // it arrives on every interface on the wire

	Egress, Ingress Ruling // what the Oracle says

	refused  bool   // by the sender's own rules
	arrived  bool   // behind the receiver's rules
	answered bool   // a SYN, and the answer came back
	iface    string // where it arrived
}

// Packet is the probe's packet.
func (p *Probe) Packet() Packet {
	return Packet{p.From.Endpoint(), p.To.Endpoint(), p.Proto, p.Port, p.shape}
}

func (p *Probe) allowed() bool { return p.Egress.Allowed && p.Ingress.Allowed }

// missing says whether something that should have been seen was not. It may have been lost.
func (p *Probe) missing() bool {
	return !p.refused && p.allowed() && (!p.arrived || p.Proto == TCP && !p.OneWay && !p.answered)
}

// Fault says how the kernel did otherwise than the Oracle says, empty when it did not.
func (p *Probe) Fault() string {
	switch {
	case p.From.hidesDrops() && p.arrived && !p.Egress.Allowed:
		return "the sender's rules let it pass, but are to drop it: " + p.Egress.Why
	case p.From.hidesDrops() && !p.Egress.Allowed:
		return ""
	case p.refused && p.Egress.Allowed:
		return "the sender's rules drop it, but it is to pass: " + p.Egress.Why
	case !p.refused && !p.Egress.Allowed:
		return "the sender's rules let it pass, but are to drop it: " + p.Egress.Why
	case p.arrived && !p.Ingress.Allowed:
		return "the receiver's rules let it pass, but are to drop it: " + p.Ingress.Why
	case p.refused || !p.allowed():
		return ""
	case !p.arrived:
		return "it does not arrive, but is to pass: " + p.Ingress.Why
	case p.iface != p.To.iface:
		return "it arrives on " + p.iface
	case p.missing():
		return "it arrives, but its answer does not"
	}
	return ""
}

const (
	chunk        = 256 // packets sent before what came in is read
	firstPort    = 1024
	attempts     = 5
	firstPause   = 2 * time.Millisecond
	markerRounds = 3
	markerPause  = 100 * time.Microsecond
	markerLimit  = 300 * time.Millisecond
	roomAttempts = 100
	roomPause    = 20 * time.Millisecond
)

// Send sends all probes and waits until what passes has arrived. Each packet of a flow has a source port of its own, so
// that none is established. What does not arrive and should is sent again a few times: a packet may be lost.
func (f *Fabric) Send(probes []*Probe) (err error) {
	free, err := pin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, free()) }()
	hosts := f.present()
	for _, h := range hosts {
		if err := h.forgetNeighbors(); err != nil {
			return err
		}
	}
	f.first += uint32(len(f.sent))
	f.sent = f.sent[:0]
	pause := firstPause
	for attempt := range attempts {
		if attempt > 0 {
			time.Sleep(pause)
			pause *= 3
		}
		f.round++
		if err := f.sendAll(hosts, probes); err != nil {
			return err
		}
		if err := f.flush(hosts); err != nil {
			return err
		}
		probes = slices.Clone(probes)
		if probes = slices.DeleteFunc(probes, func(p *Probe) bool { return !p.missing() }); len(probes) == 0 {
			break
		}
	}
	return nil
}

// pin keeps the goroutine on a single CPU: the kernel then handles the packets in the order in which they are sent.
func pin() (free func() error, err error) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("get the CPUs of the thread: %w", err)
	}
	nth := rand.IntN(before.Count())
	for cpu := range len(before) * 64 {
		if !before.IsSet(cpu) {
			continue
		}
		if nth == 0 {
			one.Set(cpu)
			break
		}
		nth--
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, fmt.Errorf("stay on one CPU: %w", err)
	}
	return func() error {
		defer runtime.UnlockOSThread()
		return unix.SchedSetaffinity(0, &before)
	}, nil
}

func (f *Fabric) sendAll(hosts []*host, probes []*Probe) error {
	// One by one the pairs, so that each chunk goes to many hosts.
	sport := uint16(firstPort + f.round%(65536-firstPort))
	for i, p := range probes {
		id := f.first + uint32(len(f.sent))
		f.sent = append(f.sent, p)
		f.buf = p.appendPacket(f.buf[:0], sport, id)
		packets := [][]byte{f.buf}
		if p.shape == inFragments {
			packets = fragments(f.buf, id)
		}
		p.refused = false
		for _, packet := range packets {
			sent, err := f.sendOne(hosts, p, packet)
			if err != nil {
				return err
			}
			p.refused = p.refused || !sent
		}
		if i%chunk == chunk-1 {
			if err := f.drain(hosts); err != nil {
				return err
			}
		}
	}
	return f.drain(hosts)
}

// sendOne sends a packet. Where the kernel has no room for a further neighbor, it makes room.
func (f *Fabric) sendOne(hosts []*host, p *Probe, packet []byte) (sent bool, err error) {
	for range roomAttempts {
		sent, err = p.From.host.send(p.From.iface, p.To.addr, packet)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOBUFS) {
			break
		}
		time.Sleep(roomPause)
		for _, h := range hosts {
			if err := h.forgetNeighbors(); err != nil {
				return false, err
			}
		}
	}
	return sent, err
}

func (f *Fabric) drain(hosts []*host) error {
	for _, h := range hosts {
		if err := h.drain(f.take); err != nil {
			return err
		}
	}
	return nil
}

// take notes what was seen of a probe. What is older than the round has been judged already.
func (f *Fabric) take(h *host, iface string, s sighting) {
	if s.kind == marked {
		h.marks[iface] = s.id
		return
	}
	i := int(s.id) - int(f.first)
	if i < 0 || i >= len(f.sent) {
		return
	}
	switch p := f.sent[i]; {
	case s.kind == arrival && h == p.To.host && (iface == p.To.iface || !p.toMany):
		p.arrived, p.iface = true, iface
	case s.kind == answered && h == p.From.host:
		p.answered = true
	}
}

// flush waits until all that was sent has arrived, if it ever will: until a marker that was sent behind it has, which
// always passes. A packet may have had to wait for an answer to a question for a neighbor; a second marker is sent after
// these questions were asked, and a third after they were answered.
func (f *Fabric) flush(hosts []*host) error {
	for range markerRounds {
		var lost []string
		for range attempts {
			var err error
			if lost, err = f.mark(hosts); err != nil {
				return err
			}
			if len(lost) == 0 {
				break
			}
		}
		if len(lost) > 0 {
			return fmt.Errorf("%w: router solicitations do not reach %s", ErrFault, strings.Join(lost, ", "))
		}
	}
	return nil
}

// mark sends a marker on each wire and returns where it did not arrive.
func (f *Fabric) mark(hosts []*host) ([]string, error) {
	id := f.first + uint32(len(f.sent))
	f.sent = append(f.sent, &Probe{}) // takes the number
	all := netip.IPv6LinkLocalAllNodes()
	f.buf = appendMarker(f.buf[:0], netip.IPv6Unspecified(), id)
	for _, l := range f.outside.links {
		if sent, err := f.outside.send(l.Iface, all, f.buf); err != nil || !sent {
			return nil, fmt.Errorf("send a marker: %v, %w", sent, err)
		}
	}
	for start := time.Now(); ; time.Sleep(markerPause) {
		if err := f.drain(hosts); err != nil {
			return nil, err
		}
		var lost []string
		for _, h := range hosts {
			for _, l := range h.links {
				if h != f.outside && h.marks[l.Iface] != id {
					lost = append(lost, fmt.Sprintf("%s of %s", l.Iface, h.Name))
				}
			}
		}
		if len(lost) == 0 || time.Since(start) > markerLimit {
			return lost, nil
		}
	}
}
