package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FloodPort is the TCP and UDP port of sinks.
const FloodPort = 5000

// Sink counts the datagrams and connections that arrive at a host, by source address.
// A sink never answers datagrams; it echoes on connections.
type Sink struct {
	// udp and tcp are closed with the test
	udp *net.UDPConn
	tcp net.Listener
	mu  sync.Mutex // guards the maps
	// A datagram that the network duplicates must not hide a lost datagram, so datagrams count by their numbers.
	seen  map[netip.Addr]map[uint64]int // copies of each datagram, by sender and number
	opens map[netip.Addr]int            // TCP connections, by sender
}

// NewSink listens in the host on FloodPort until the test ends.
func NewSink(t TB, server *Host) *Sink {
	t.Helper()
	s := &Sink{seen: map[netip.Addr]map[uint64]int{}, opens: map[netip.Addr]int{}}
	err := server.Do(func() (err error) {
		if s.udp, err = net.ListenUDP("udp4", &net.UDPAddr{Port: FloodPort}); err != nil {
			return err
		}
		s.tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: FloodPort})
		// The buffer is large, because a datagram that does not fit would look like a datagram that the policies
		// dropped.
		return errors.Join(err, s.udp.SetReadBuffer(8<<20))
	})
	if err != nil {
		t.Fatalf("sink in %s: %v", server.Name, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.udp.Close(), s.tcp.Close()); err != nil {
			t.Errorf("close the sink in %s: %v", server.Name, err)
		}
	})
	// Both goroutines end when their sockets are closed.
	go EachDatagram(s.udp, 8, s.count)
	go s.connections()
	return s
}

// count counts a datagram.
// A message is the number of a datagram, 8 bytes in network byte order.
func (s *Sink) count(from netip.Addr, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers := s.seen[from]
	if numbers == nil {
		numbers = map[uint64]int{}
		s.seen[from] = numbers
	}
	numbers[binary.BigEndian.Uint64(message)]++
}

// EachDatagram calls do for each datagram of the given size, until the socket is closed. The message is valid during the call.
// It ends without an error when the socket is closed. A datagram of another size is ignored.
func EachDatagram(socket *net.UDPConn, size int, do func(from netip.Addr, message []byte)) {
	b := make([]byte, size+1) // a larger datagram is cut to size+1 bytes
	for {
		n, from, err := socket.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n == size {
			do(from.Addr().Unmap(), b[:n])
		}
	}
}

// connections counts the connections until the socket is closed. It echoes on each connection until the client closes it.
func (s *Sink) connections() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		s.mu.Lock()
		s.opens[from]++
		s.mu.Unlock()
		go func() {
			defer hangUp(c)
			b := make([]byte, 64)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		}()
	}
}

// Received returns the number of different datagrams and the number of connections from an address.
// It may be called while a flood runs; datagrams on their way are missing then.
func (s *Sink) Received(from netip.Addr) (datagrams, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen[from]), s.opens[from]
}

// Flood continuously sends numbered datagrams from a host to a sink, and opens connections. The sink does not answer datagrams,
// so the flow never becomes established in conntrack, and the rules judge each datagram.
type Flood struct {
	Sent    atomic.Uint64 // datagrams, also the refused datagrams
	Refused atomic.Int64  // datagrams that the sender's own rules dropped
	Opened  atomic.Int64  // connections with an echo
	Failed  atomic.Int64  // connections that did not open, or had no echo
	stop    chan struct{}
	done    sync.WaitGroup
}

// A gap in the enforcement of a millisecond thus lets a datagram or two pass.
const floodPause = 400 * time.Microsecond // between two datagrams

// Timeouts for a connection of a Flood to open and to echo. AllowedPatience is long, for a busy machine, but below the second
// after which TCP retransmits a lost SYN: a retransmission would hide the loss.
const (
	AllowedPatience   = 900 * time.Millisecond
	ForbiddenPatience = 250 * time.Millisecond
)

// StartFlood starts a flood, which runs until End. patience is the timeout of each connection.
func StartFlood(t TB, from *Host, to netip.AddrPort, patience time.Duration) *Flood {
	t.Helper()
	f := &Flood{stop: make(chan struct{})}
	socket, err := from.DialUDP(to)
	if err != nil {
		t.Fatalf("flood: %v", err)
	}
	f.done.Go(func() { f.datagrams(socket) })
	f.done.Go(func() { f.connections(from, to, patience) })
	return f
}

// DialUDP opens a UDP socket over IPv4 in the host for datagrams to a server.
// The caller closes the socket. It can be used outside of the host's namespace.
func (h *Host) DialUDP(to netip.AddrPort) (socket *os.File, err error) {
	err = h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		socket = os.NewFile(uintptr(fd), "datagrams")
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	})
	return socket, err
}

// running reports whether End was not called yet.
// The goroutines of the flood ask before each datagram and each connection.
func (f *Flood) running() bool {
	select {
	case <-f.stop:
		return false
	default:
		return true
	}
}

// datagrams sends numbered datagrams until End is called. The numbers start at 0 and leave out none.
func (f *Flood) datagrams(socket *os.File) {
	defer socket.Close()
	b := make([]byte, 8)
	for f.running() {
		binary.BigEndian.PutUint64(b, f.Sent.Load())
		if _, err := socket.Write(b); err != nil {
			f.Refused.Add(1) // EPERM: the sender's own output chain dropped it
		}
		f.Sent.Add(1)
		time.Sleep(floodPause)
	}
}

// connections opens a connection after another, and waits for an echo on each.
// An attempt that takes the whole patience is the normal case of a forbidden flood.
func (f *Flood) connections(from *Host, to netip.AddrPort, patience time.Duration) {
	for f.running() {
		if r := Probe(context.Background(), from, to, TCP, patience); r.Verdict == Allowed {
			f.Opened.Add(1)
		} else {
			f.Failed.Add(1)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// End stops the flood and waits until its last connection has an outcome. Call it before the checks of the sink.
func (f *Flood) End() {
	close(f.stop)
	f.done.Wait()
}

// HasAllFrom fails the test if any datagram or connection of a flood from the address was lost.
// Call it after End, and when packets that are on their way have arrived.
func (s *Sink) HasAllFrom(t TB, from netip.Addr, f *Flood) {
	t.Helper()
	datagrams, connections := s.Received(from)
	t.Logf("allowed: %d of %d datagrams, %d connections", datagrams, f.Sent.Load(), connections)
	if uint64(datagrams) != f.Sent.Load() || f.Failed.Load() > 0 {
		t.Errorf("lost what is allowed from %s: %d datagrams (%d refused at the sender), %d connections failed",
			from, f.Sent.Load()-uint64(datagrams), f.Refused.Load(), f.Failed.Load())
	}
	// A flood without any success shows that the test is wrong, not that the policies are right.
	if f.Sent.Load() == 0 || f.Opened.Load() == 0 {
		t.Errorf("not a flood from %s: %d datagrams, %d connections", from, f.Sent.Load(), f.Opened.Load())
	}
}

// HasNothingFrom fails the test if any datagram or connection of a flood from the address arrived.
func (s *Sink) HasNothingFrom(t TB, from netip.Addr, f *Flood) {
	t.Helper()
	if datagrams, connections := s.Received(from); datagrams+connections > 0 || f.Opened.Load() > 0 {
		t.Errorf("LEAK from %s: %d of %d datagrams, %d connections, %d of them opened",
			from, datagrams, f.Sent.Load(), connections, f.Opened.Load())
	}
	if f.Sent.Load() == 0 || f.Failed.Load() == 0 {
		t.Errorf("not a flood from %s: %d datagrams, %d connections", from, f.Sent.Load(), f.Failed.Load())
	}
}
