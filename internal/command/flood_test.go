package command

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
)

// floodPort is what everybody floods, over TCP and UDP.
const floodPort = 5000

// sink counts what gets through to a server, by source address.
type sink struct {
	udp   *net.UDPConn
	tcp   net.Listener
	mu    sync.Mutex
	seen  map[netip.Addr]map[uint64]int // datagrams by sender and number
	opens map[netip.Addr]int            // TCP connections
}

func newSink(t *testing.T, server *lab.Host) *sink {
	t.Helper()
	s := &sink{seen: map[netip.Addr]map[uint64]int{}, opens: map[netip.Addr]int{}}
	err := server.Do(func() (err error) {
		if s.udp, err = net.ListenUDP("udp4", &net.UDPAddr{Port: floodPort}); err != nil {
			return err
		}
		s.tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: floodPort})
		return errors.Join(err, s.udp.SetReadBuffer(8<<20))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.udp.Close(); s.tcp.Close() })
	go s.datagrams()
	go s.connections()
	return s
}

func (s *sink) datagrams() {
	b := make([]byte, 64)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n != 8 {
			continue
		}
		s.mu.Lock()
		numbers := s.seen[from.Addr().Unmap()]
		if numbers == nil {
			numbers = map[uint64]int{}
			s.seen[from.Addr().Unmap()] = numbers
		}
		numbers[binary.BigEndian.Uint64(b)]++
		s.mu.Unlock()
	}
}

// connections echoes, until the other side closes.
func (s *sink) connections() {
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
			defer c.Close()
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

// received is how many different datagrams, and how many connections, came from the address.
func (s *sink) received(from netip.Addr) (datagrams, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen[from]), s.opens[from]
}

// flood sends numbered datagrams from a host to the server, without a pause but for the pace, and opens connections.
// The server does not answer datagrams, so that conntrack never takes the flow for established: each is judged anew.
type flood struct {
	sent    atomic.Uint64
	refused atomic.Int64 // datagrams that the sender's side dropped
	opened  atomic.Int64 // connections
	failed  atomic.Int64 // connections that did not open, or brought nothing back
	stop    chan struct{}
	done    sync.WaitGroup
}

const floodPause = 400 * time.Microsecond

// How long a connection may take to open and to echo. What is allowed has its time on a busy machine, but not that in
// which TCP sends a lost SYN again: that would hide the loss.
const (
	allowedPatience   = 900 * time.Millisecond
	forbiddenPatience = 250 * time.Millisecond
)

func startFlood(t *testing.T, from *lab.Host, to netip.AddrPort, patience time.Duration) *flood {
	t.Helper()
	f := &flood{stop: make(chan struct{})}
	var socket *os.File
	err := from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		socket = os.NewFile(uintptr(fd), "flood")
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	})
	if err != nil {
		t.Fatal(err)
	}
	f.done.Go(func() { f.datagrams(socket) })
	f.done.Go(func() { f.connections(from, to, patience) })
	return f
}

func (f *flood) running() bool {
	select {
	case <-f.stop:
		return false
	default:
		return true
	}
}

func (f *flood) datagrams(socket *os.File) {
	defer socket.Close()
	b := make([]byte, 8)
	for f.running() {
		binary.BigEndian.PutUint64(b, f.sent.Load())
		if _, err := socket.Write(b); err != nil {
			f.refused.Add(1) // EPERM: the sender's own output chain dropped it
		}
		f.sent.Add(1)
		time.Sleep(floodPause)
	}
}

// connections opens one after another; each says something and wants it back.
func (f *flood) connections(from *lab.Host, to netip.AddrPort, patience time.Duration) {
	for f.running() {
		if r := lab.Probe(context.Background(), from, to, lab.TCP, patience); r.Verdict == lab.Allowed {
			f.opened.Add(1)
		} else {
			f.failed.Add(1)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *flood) end() {
	close(f.stop)
	f.done.Wait()
}

// allFrom fails the test when anything of a flood from the address was lost.
func (s *sink) allFrom(t *testing.T, from netip.Addr, f *flood) {
	t.Helper()
	datagrams, connections := s.received(from)
	t.Logf("allowed: %d of %d datagrams, %d connections", datagrams, f.sent.Load(), connections)
	if uint64(datagrams) != f.sent.Load() || f.failed.Load() > 0 {
		t.Errorf("lost what is allowed from %s: %d datagrams (%d refused at the sender), %d connections failed",
			from, f.sent.Load()-uint64(datagrams), f.refused.Load(), f.failed.Load())
	}
	if f.sent.Load() == 0 || f.opened.Load() == 0 {
		t.Errorf("not a flood from %s: %d datagrams, %d connections", from, f.sent.Load(), f.opened.Load())
	}
}

// nothingFrom fails the test when anything of a flood from the address arrived.
func (s *sink) nothingFrom(t *testing.T, from netip.Addr, f *flood) {
	t.Helper()
	if datagrams, connections := s.received(from); datagrams+connections > 0 || f.opened.Load() > 0 {
		t.Errorf("LEAK from %s: %d of %d datagrams, %d connections, %d of them opened",
			from, datagrams, f.sent.Load(), connections, f.opened.Load())
	}
	if f.sent.Load() == 0 || f.failed.Load() == 0 {
		t.Errorf("not a flood from %s: %d datagrams, %d connections", from, f.sent.Load(), f.failed.Load())
	}
}
