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

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Probe is a packet with the expected and the observed verdict.
// It is sent by Fabric.Send, which fills in the fields from refused on.
type Probe struct {
	From, To Terminal
	Proto    oracle.Protocol
	// The destination port; 0 for ICMP.
	Port uint16
	// No answer is waited for: the answer would go to another host, because the source is forged, or by another
	// interface.
	OneWay bool

	flow  *flow // the connection that the packet belongs to; nil: it is the first packet of a new connection
	reply bool  // with flow: the packet goes against the direction in which the connection was opened
	shape oracle.Shape

	toMany bool // a multicast or broadcast packet, which arrives on every interface on the wire

	Egress, Ingress oracle.Ruling // the Oracle's verdicts at the sender and at the receiver

	refused  bool   // the sender's own rules dropped the packet: the send failed with EPERM
	arrived  bool   // it passed the receiver's rules
	answered bool   // for a SYN: the SYN-ACK came back
	iface    string // the interface on which it arrived
}

// Packet returns the packet of the probe.
func (p *Probe) Packet() oracle.Packet {
	return oracle.Packet{From: p.From.Endpoint(), To: p.To.Endpoint(), Proto: p.Proto, Port: p.Port, Shape: p.shape}
}

// allowed reports whether both sides are to let the packet pass.
func (p *Probe) allowed() bool { return p.Egress.Allowed && p.Ingress.Allowed }

// missing reports whether something that should have been seen was not seen. A packet may have been lost, so the probe
// is sent again.
func (p *Probe) missing() bool {
	return !p.refused && p.allowed() && (!p.arrived || p.Proto == oracle.TCP && !p.OneWay && !p.answered)
}

// Fault returns how the kernel's verdict differs from the Oracle's, empty if it does not differ. A TCP probe must also
// get its answer: it shows that replies pass.
func (p *Probe) Fault() string {
	switch {
	// Behind a device that hides drops, a refused send looks like a sent packet. Only an arrival is proof there.
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
	chunk        = 256  // packets sent before what came in is read
	firstPort    = 1024 // source ports from 1024 on
	attempts     = 5
	firstPause   = 2 * time.Millisecond // before the second attempt; three times as long before each further attempt
	markerRounds = 3                    // see flush
	markerPause  = 100 * time.Microsecond
	markerLimit  = 300 * time.Millisecond // how long a marker may take
	// sendOne waits up to roomAttempts * roomPause for room.
	roomAttempts = 100
	roomPause    = 20 * time.Millisecond
)

// Send sends all probes and waits until all packets that pass have arrived. Each send has a source port of its own, so
// that no probe belongs to a connection of an earlier probe. A packet that should arrive and does not is sent again a
// few times: packets may be lost.
//
// A packet that must be dropped is not waited for by time: markers that are sent behind the probes arrive after them.
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
	// Numbers of earlier sends must not be taken for probes of this send: late packets may still arrive.
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
		// Only lost packets are sent again. A verdict that lets a packet pass by mistake is final.
		if probes = slices.DeleteFunc(probes, func(p *Probe) bool { return !p.missing() }); len(probes) == 0 {
			break
		}
	}
	return nil
}

// pin keeps the goroutine on a single CPU. The kernel handles packets between network namespaces in a queue per CPU, so
// they then arrive in the order in which they are sent, and a marker is never early. The CPU is chosen at random, so
// that tests that run at the same time mostly use different CPUs.
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

// sendAll sends each probe once, and reads the arrivals often enough that no receive buffer overflows.
func (f *Fabric) sendAll(hosts []*host, probes []*Probe) error {
	// The source port differs from the source ports of the last sends, so no packet belongs to an earlier connection.
	sport := uint16(firstPort + f.round%(65536-firstPort))
	for i, p := range probes {
		id := f.first + uint32(len(f.sent))
		f.sent = append(f.sent, p)
		f.buf = p.appendPacket(f.buf[:0], sport, id)
		packets := [][]byte{f.buf}
		if p.shape == oracle.InFragments {
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

// sendOne sends a packet. Without room for a further neighbor entry the kernel refuses the packet. Then sendOne makes
// room and tries again.
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

// drain reads the arrivals of all hosts.
// It does not wait for packets.
func (f *Fabric) drain(hosts []*host) error {
	for _, h := range hosts {
		if err := h.drain(f.take); err != nil {
			return err
		}
	}
	return nil
}

// take notes the arrival of a probe's packet, or of its answer. Packets of earlier sends are ignored.
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

// flush waits until all packets that will ever arrive have arrived: until markers have arrived that were sent behind
// them. The rules always let a marker pass. A packet may have had to wait until the address of its neighbor was known;
// so a second marker is sent after the neighbor solicitations, and a third marker after their answers.
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

// mark sends a marker on each wire and returns the interfaces on which it did not arrive.
func (f *Fabric) mark(hosts []*host) ([]string, error) {
	id := f.first + uint32(len(f.sent))
	f.sent = append(f.sent, &Probe{}) // the marker takes the number
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
