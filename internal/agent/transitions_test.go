package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/conntrack"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// flow is a connection between the server, which is the pod under test, and a peer. Both ends remember what they receive.
type flow struct {
	name     string
	protocol string // "tcp", "sctp", "udp"; "udp server": the server's socket has no peer
	peer     string // "friend", which the policy allows, or "stranger"
	byPeer   bool   // the peer opened the connection
	podFirst bool   // after each event, the pod sends first

	port       int // of the end that did not open the connection
	pod, other *flowEnd
	sent       int
}

func (f *flow) network() string { return strings.Fields(f.protocol)[0] }

// flowEnd is one end of a flow.
type flowEnd struct {
	send func(text string) error
	mu   sync.Mutex
	got  strings.Builder
}

// receive keeps what arrives, until the connection is closed.
func (e *flowEnd) receive(read func([]byte) (int, error)) {
	buf := make([]byte, 1<<10)
	for {
		n, err := read(buf)
		if err != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF)) {
			return
		}
		e.mu.Lock()
		e.got.Write(buf[:n])
		e.mu.Unlock()
	}
}

func (e *flowEnd) has(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(e.got.String(), text)
}

// firstPort is the port of the first flow that a test opens. The kernel chooses it for no client.
const firstPort = 1000

// open opens the flow. n tells the flow from others between the same hosts.
func (f *flow) open(r *rig, n int) {
	r.t.Helper()
	network := f.network()
	at := map[string]string{"server": "10.9.0.1", "friend": "10.9.0.2", "stranger": "10.9.0.3"}
	f.port = firstPort + n
	from, to := f.peer, "server"
	if !f.byPeer {
		from, to = to, from
	}
	f.pod, f.other = &flowEnd{}, &flowEnd{}
	client, server := f.other, f.pod
	if !f.byPeer {
		client, server = server, client
	}
	target := netip.AddrPortFrom(netip.MustParseAddr(at[to]), uint16(f.port))
	accepted := make(chan error, 1)
	r.in(to, func() error {
		if network != "udp" {
			accept, err := listenTo(network, target)
			if err != nil {
				return err
			}
			go func() {
				c, err := accept()
				if err == nil {
					r.t.Cleanup(func() { c.Close() })
					server.send = func(text string) error { _, err := c.Write([]byte(text)); return err }
					go server.receive(c.Read)
				}
				accepted <- err
			}()
			return nil
		}
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(target))
		if err != nil {
			return err
		}
		r.t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 100)
			_, peer, err := c.ReadFromUDPAddrPort(buf)
			if err == nil && f.protocol == "udp" {
				err = connect(c, peer)
				server.send = func(text string) error { _, err := c.Write([]byte(text)); return err }
			} else {
				server.send = func(text string) error { _, err := c.WriteToUDPAddrPort([]byte(text), peer); return err }
			}
			go server.receive(func(b []byte) (int, error) { n, _, err := c.ReadFromUDPAddrPort(b); return n, err })
			accepted <- err
		}()
		return nil
	})
	r.in(from, func() error {
		c, err := dialTo(network, target)
		if err != nil {
			return err
		}
		r.t.Cleanup(func() { c.Close() })
		client.send = func(text string) error { _, err := c.Write([]byte(text)); return err }
		go client.receive(c.Read)
		return client.send("hello")
	})
	if err := <-accepted; err != nil {
		r.t.Fatal(err)
	}
}

// in runs a function in the namespace of a host.
func (r *rig) in(host string, do func() error) {
	r.t.Helper()
	if err := r.Hosts[host].Do(do); err != nil {
		r.t.Fatal(err)
	}
}

// fate is what becomes of a message.
type fate int

const (
	stops fate = iota
	arrives
	mayArrive
)

// exchange sends a message each way, and reports the messages with another fate. For a message that is to arrive it waits
// long: the sender of a lost TCP segment waits before it sends the segment again.
func (f *flow) exchange(toPod, toPeer fate) (wrong []string) {
	send := func(to string, from, at *flowEnd, want fate) {
		f.sent++
		text := fmt.Sprintf("<%d>", f.sent)
		from.send(text) //nolint:errcheck // a peer may have got an ICMP error
		if want == mayArrive {
			return
		}
		patience := never
		if want == arrives {
			patience = soon
		}
		for deadline := time.Now().Add(patience); !at.has(text); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				if want == arrives {
					wrong = append(wrong, "a message to the "+to+" was dropped")
				}
				return
			}
		}
		if want == stops {
			wrong = append(wrong, "a message to the "+to+" arrived")
		}
	}
	if f.podFirst {
		send("peer", f.pod, f.other, toPeer)
		send("pod", f.other, f.pod, toPod)
	} else {
		send("pod", f.other, f.pod, toPod)
		send("peer", f.pod, f.other, toPeer)
	}
	return wrong
}

// passes returns the fates of messages under a policy that isolates the pod in some directions. The direction in which the
// connection was opened decides. If the policy forbids that, messages the other way pass unless they are isolated too; but
// TCP and SCTP send no more of them when nobody acknowledges them.
func (f *flow) passes(ingress, egress, revoke bool) (toPod, toPeer fate) {
	isForbidden := f.byPeer && ingress || !f.byPeer && egress
	reply := arrives
	switch {
	case ingress && egress:
		reply = stops
	case f.protocol == "tcp", f.protocol == "sctp":
		reply = mayArrive
	}
	switch {
	case f.peer == "friend" || !isForbidden:
		return arrives, arrives
	case !revoke && f.protocol == "udp server": // see docs/nftables.md
		return mayArrive, mayArrive
	case !revoke:
		return arrives, arrives
	case f.byPeer:
		return stops, reply
	default:
		return reply, stops
	}
}

// Connections from before the first policy go on or stop as if the kernel had tracked them from their start, whoever opened
// them and whoever sends first.
func TestTransitions(t *testing.T) {
	for _, isolate := range []string{"Ingress", "Egress", "Ingress, Egress"} {
		for _, revoke := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, revoke %t", isolate, revoke), func(t *testing.T) {
				t.Parallel()
				testTransitions(t, isolate, revoke)
			})
		}
	}
}

func testTransitions(t *testing.T, isolate string, revoke bool) {
	r := newRig(t)
	r.config.Cache.RevokeEstablished = revoke
	ingress, egress := strings.Contains(isolate, "Ingress"), strings.Contains(isolate, "Egress")
	var flows []*flow
	protocols := []string{"tcp", "udp", "udp server"}
	if hasSCTP(t) {
		protocols = append(protocols, "sctp")
	}
	for _, protocol := range protocols {
		for _, peer := range []string{"friend", "stranger"} {
			for _, byPeer := range []bool{true, false} {
				for _, podFirst := range []bool{true, false} {
					if protocol == "udp server" && (!byPeer || podFirst && egress) {
						continue // the pod is the client; or see docs/nftables.md: the peer has to send first
					}
					f := &flow{name: fmt.Sprintf("%s with %s, opened by peer %t, pod sends first %t", protocol, peer, byPeer, podFirst),
						protocol: protocol, peer: peer, byPeer: byPeer, podFirst: podFirst}
					f.open(r, len(flows))
					flows = append(flows, f)
				}
			}
		}
	}
	var served, dialed []string // ports, so that no message passes only because it could be the first of a connection
	for _, f := range flows {
		port := fmt.Sprintf("{port: %d, protocol: %s}", f.port, strings.ToUpper(f.network()))
		if f.byPeer {
			served = append(served, port)
		} else {
			dialed = append(dialed, port)
		}
	}
	policy := fmt.Sprintf(`
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [%s],
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [%s]}],
  egress: [{to: [{podSelector: {matchLabels: {app: friend}}}], ports: [%s]}]}}
`, isolate, strings.Join(served, ", "), strings.Join(dialed, ", "))
	expect := func(when string, ingress, egress bool) {
		t.Helper()
		var all sync.WaitGroup
		for _, f := range flows {
			all.Go(func() {
				for _, problem := range f.exchange(f.passes(ingress, egress, revoke)) {
					t.Errorf("%s: %s: %s", when, f.name, problem)
				}
			})
		}
		all.Wait()
	}
	r.Load(node.Cluster)
	r.StartRuntime("server")
	stop := r.start()
	expect("without a policy", false, false)
	r.Load(node.Cluster + policy)
	r.isEnforced(true)
	expect("with the first policy", ingress, egress)
	stop()
	r.start()
	expect("after a restart", ingress, egress)
	r.Load(node.Cluster)
	r.isEnforced(false)
	expect("after the last policy", false, false)
	r.Load(node.Cluster + policy)
	r.isEnforced(true)
	expect("with another policy", ingress, egress)
	r.in("server", func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	r.isSeeded()
	expect("after connection tracking has forgotten everything", ingress, egress)
}

// listenTo returns a function that waits for a connection, and closes what it listens with.
func listenTo(network string, at netip.AddrPort) (accept func() (io.ReadWriteCloser, error), err error) {
	if network == "tcp" {
		l, err := net.Listen("tcp4", at.String())
		return func() (io.ReadWriteCloser, error) {
			defer l.Close()
			return l.Accept()
		}, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(unix.Bind(fd, sockaddr(at)), unix.Listen(fd, 1)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return func() (io.ReadWriteCloser, error) {
		accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return nil, err
		}
		return socketFile(accepted)
	}, nil
}

func dialTo(network string, to netip.AddrPort) (io.ReadWriteCloser, error) {
	if network != "sctp" {
		return net.Dial(network+"4", to.String())
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return socketFile(fd)
}

func socketFile(fd int) (io.ReadWriteCloser, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "sctp"), nil
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
}

// hasSCTP reports whether the kernel has sockets of SCTP.
func hasSCTP(t *testing.T) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		t.Logf("no SCTP on this kernel, so this test is without SCTP: %v", err)
		return false
	}
	return unix.Close(fd) == nil
}

// isSeeded waits until the server's connection tracking knows its connections again.
func (r *rig) isSeeded() {
	r.t.Helper()
	c, err := nfnl.Open(r.Hosts["server"].NetNS())
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	node.Eventually(r.t, "connections are restored", func() bool {
		is, err := conntrack.IsSeeded(c)
		if err != nil {
			r.t.Error(err)
		}
		return is || err != nil
	})
}

// connect gives a UDP socket a peer, as connect(2) does.
func connect(c *net.UDPConn, peer netip.AddrPort) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.Connect(int(fd), sockaddr(peer)) })
	return errors.Join(err, inner)
}
