package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// beamPort is the port of receivers.
const beamPort = 5001

// beamPause is the time between two datagrams of a beam, and the resolution of the measurements.
const beamPause = time.Millisecond

// clockStart is the origin of the times in datagrams.
// It is the same clock for senders and receivers, as all are in this process.
var clockStart = time.Now()

// beam sends a numbered datagram every millisecond from a host to another host. The receiver does not answer, so connection
// tracking never takes the beam for established: the rules judge each datagram anew.
// sent is the number of the last datagram; the first is 1
type beam struct {
	sent atomic.Uint64
	stop chan struct{}
	done sync.WaitGroup
}

// startBeam starts sending. The caller must call end.
func startBeam(from *lab.Host, to netip.Addr) (*beam, error) {
	b := &beam{stop: make(chan struct{})}
	socket, err := from.DialUDP(netip.AddrPortFrom(to, beamPort))
	if err != nil {
		return nil, fmt.Errorf("beam: %w", err)
	}
	b.done.Go(func() { b.run(socket) })
	return b, nil
}

// run sends a datagram at each tick. A tick that comes late on a busy machine is dropped, so numbers never jump.
func (b *beam) run(socket *os.File) {
	defer socket.Close() //nolint:errcheck // nothing is lost with it
	// A datagram is 16 bytes: its number and the time at which it was sent, in network byte order.
	message := make([]byte, 16)
	ticker := time.NewTicker(beamPause)
	defer ticker.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-ticker.C:
		}
		number := b.sent.Load() + 1
		binary.BigEndian.PutUint64(message, number)
		binary.BigEndian.PutUint64(message[8:], uint64(time.Since(clockStart)))
		socket.Write(message) //nolint:errcheck // EPERM and ECONNREFUSED: the receiver counts the packets
		b.sent.Store(number)
	}
}

// end returns when no more datagrams are sent.
func (b *beam) end() {
	close(b.stop)
	b.done.Wait()
}

// arrivals counts the datagrams that a receiver got from a sender since the last mark.
// A gap in the numbers is a datagram that the rules dropped, or that was lost.
type arrivals struct {
	count       uint64
	first, last uint64        // numbers of datagrams
	firstAt     time.Duration // when they were sent, since clockStart
	lastAt      time.Duration
}

// missing returns how many datagrams between the first and the last did not arrive.
func (a arrivals) missing() int {
	if a.count == 0 {
		return 0
	}
	return int(a.last - a.first + 1 - a.count)
}

// receiver counts the datagrams of beams that reach a host, by sender.
// Times are those of the sender, so that a receiver that runs late does not shift a measurement.
type receiver struct {
	conn *net.UDPConn

	mu   sync.Mutex
	from map[netip.Addr]arrivals
	// mark sets it.
	ignore map[netip.Addr]time.Duration // datagrams that were sent up to then: on a busy machine they may arrive late
}

// newReceiver starts counting on beamPort of the host. The caller must close it.
func newReceiver(h *lab.Host) (*receiver, error) {
	r := &receiver{from: map[netip.Addr]arrivals{}, ignore: map[netip.Addr]time.Duration{}}
	err := h.Do(func() (err error) {
		r.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: beamPort})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receiver in %s: %w", h.Name, err)
	}
	raw, err := r.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Beyond the limit for programs without privileges: on a busy machine the receiver may be late, and must lose nothing.
	forced := errors.New("not set")
	if err := raw.Control(func(fd uintptr) { forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) }); err != nil {
		return nil, err
	}
	go lab.EachDatagram(r.conn, 16, r.count)
	return r, forced
}

// count adds a datagram. Datagrams from before the last mark do not count.
func (r *receiver) count(from netip.Addr, message []byte) {
	number, at := binary.BigEndian.Uint64(message), time.Duration(binary.BigEndian.Uint64(message[8:]))
	r.mu.Lock()
	defer r.mu.Unlock()
	if at <= r.ignore[from] {
		return
	}
	a := r.from[from]
	if a.count == 0 {
		a.first, a.firstAt = number, at
	}
	a.count++
	a.last, a.lastAt = number, at
	r.from[from] = a
}

// got returns the arrivals from a sender since the last mark.
func (r *receiver) got(from netip.Addr) arrivals {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from[from]
}

// mark starts a new count of a sender, of datagrams that are sent from now on. It returns the old count.
func (r *receiver) mark(from netip.Addr) arrivals {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.from[from]
	delete(r.from, from)
	r.ignore[from] = time.Since(clockStart)
	return old
}

func (r *receiver) close() { r.conn.Close() } //nolint:errcheck // nothing is lost with it

// flows are the floods that are in flight during an attack.
// Unlike beams, they have TCP connections too, and count each packet that was sent.
type flows struct {
	tb        *testbench
	allowed   []flow
	forbidden []flow
}

// flow is a flood from a host to the sink of another host.
type flow struct {
	flood *lab.Flood
	sink  *lab.Sink
	from  netip.Addr
}

// testbench is the lab's view of the rig. Package lab reports failures as it does to a test.
// The rig is no test, so errors are kept, and close runs the cleanups in reverse order.
type testbench struct {
	cleanups []func()
	errs     []error
}

// Helper implements lab.TB.
func (t *testbench) Helper() {}

// Logf implements lab.TB.
func (t *testbench) Logf(string, ...any) {}

// Errorf implements lab.TB.
func (t *testbench) Errorf(format string, args ...any) {
	t.errs = append(t.errs, fmt.Errorf(format, args...))
}

// Fatalf implements lab.TB. The supervisor cleans up after a panic.
func (t *testbench) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Cleanup implements lab.TB.
func (t *testbench) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// close runs the functions of Cleanup, the last first.
func (t *testbench) close() {
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		last()
	}
}

// startFlows floods the victim with allowed and forbidden packets, in both directions.
func (v *victim) startFlows() *flows {
	f := &flows{tb: &testbench{}}
	sinks := map[string]*lab.Sink{}
	for _, name := range []string{"server", "service", "outside"} {
		sinks[name] = lab.NewSink(f.tb, v.hosts[name])
	}
	start := func(from, to string, patience time.Duration) flow {
		target := netip.AddrPortFrom(addresses[to], lab.FloodPort)
		return flow{lab.StartFlood(f.tb, v.hosts[from], target, patience), sinks[to], addresses[from]}
	}
	// Two directions: the ingress of server and the egress of client.
	f.allowed = []flow{start("friend", "server", lab.AllowedPatience), start("client", "service", lab.AllowedPatience)}
	f.forbidden = []flow{start("stranger", "server", lab.ForbiddenPatience), start("client", "outside", lab.ForbiddenPatience)}
	return f
}

// drainTime is how long packets may be under way at the end of a flood, on a busy machine.
const drainTime = 2 * time.Second

// end stops the floods. leaks is the number of forbidden packets and connections that arrived, lost the number of allowed
// packets and connections that did not.
// After the floods have ended, allowed packets may still be on their way; a forbidden packet that comes later than
// drainTime would be missed.
func (f *flows) end() (leaks, lost int) {
	for _, x := range append(f.allowed, f.forbidden...) {
		x.flood.End()
	}
	// As long as a packet is missing, it may still be on its way.
	for end := time.Now().Add(drainTime); f.lost() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	leaks, lost = f.leaks(), f.lost()
	f.tb.close()
	return leaks, lost
}

// lost returns how many allowed packets and connections have not arrived. While a flood goes on, some are under way.
func (f *flows) lost() (n int) {
	for _, x := range f.allowed {
		datagrams, _ := x.sink.Received(x.from)
		n += int(x.flood.Sent.Load()) - datagrams + int(x.flood.Failed.Load())
	}
	return n
}

// leaks returns how many forbidden packets and connections have arrived.
func (f *flows) leaks() (n int) {
	for _, x := range f.forbidden {
		datagrams, connections := x.sink.Received(x.from)
		n += datagrams + connections
	}
	return n
}
