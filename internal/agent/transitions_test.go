package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/conntrack"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// flow is a connection between the server, which is the pod under test, and a peer. Both ends remember what they receive.
type flow struct {
	name     string
	kind     lab.FlowKind
	peer     string // "friend", which the policy allows, or "stranger"
	isIPv6   bool
	byPeer   bool // the peer opened the connection
	podFirst bool // after each event, the pod sends first

	isForgotten bool // the kernel has no entry of the flow any more

	port       int // of the end that did not open the connection
	pod, other *flowEnd
	sent       int
}

func (f *flow) network() string { return strings.Fields(string(f.kind))[0] }

// flowEnd is one end of a flow.
type flowEnd struct {
	lab.FlowEnd
	mu  sync.Mutex
	got strings.Builder
}

// receive keeps what arrives, until the connection is closed.
func (e *flowEnd) receive() {
	buf := make([]byte, 1<<10)
	for {
		n, err := e.Read(buf)
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

// flowHosts are the ends of flows. The host at index i has the addresses 10.9.0.(i+1) and fd09::(i+1).
var flowHosts = []string{"server", "friend", "stranger"}

// open opens the flow. n tells the flow from others between the same hosts.
func (f *flow) open(r *rig, n int) {
	r.t.Helper()
	format := "10.9.0.%d"
	if f.isIPv6 {
		format = "fd09::%d"
	}
	f.port = firstPort + n
	from, to := f.peer, "server"
	if !f.byPeer {
		from, to = to, from
	}
	opened, err := lab.OpenFlow(r.t.Context(), lab.FlowSpec{
		Kind: f.kind, From: r.Hosts[from], To: r.Hosts[to],
		Target: netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(format, slices.Index(flowHosts, to)+1)), uint16(f.port)),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { opened.Close() })
	f.pod, f.other = &flowEnd{FlowEnd: opened.Other}, &flowEnd{FlowEnd: opened.Opener}
	if !f.byPeer {
		f.pod, f.other = f.other, f.pod
	}
	go f.pod.receive()
	go f.other.receive()
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
		from.Write([]byte(text)) //nolint:errcheck // a peer may have got an ICMP error
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
	case f.kind == lab.FlowTCP, f.kind == lab.FlowSCTP:
		reply = mayArrive
	}
	switch {
	case f.peer == "friend" || !isForbidden:
		return arrives, arrives
	case !revoke && (f.kind == lab.FlowUDPServer || f.isForgotten): // see docs/nftables.md
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
	for i, host := range flowHosts {
		if err := r.Hosts[host].AddAddr("net1", netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd09::%d", i+1)), 64)); err != nil {
			t.Fatal(err)
		}
	}
	pods := regexp.MustCompile(`"10\.9\.0\.(\d)"`).ReplaceAllString(node.Cluster, `"10.9.0.$1", "fd09::$1"`)
	ingress, egress := strings.Contains(isolate, "Ingress"), strings.Contains(isolate, "Egress")
	var flows []*flow
	kinds := []lab.FlowKind{lab.FlowTCP, lab.FlowUDP, lab.FlowUDPServer}
	if lab.HasSCTP(t) {
		kinds = append(kinds, lab.FlowSCTP)
	}
	for _, kind := range kinds {
		for _, peer := range []string{"friend", "stranger"} {
			for i := range 8 {
				f := &flow{kind: kind, peer: peer, isIPv6: i&1 > 0, byPeer: i&2 > 0, podFirst: i&4 > 0}
				if kind == lab.FlowUDPServer && (!f.byPeer || f.podFirst && egress) {
					continue // the pod is the client; or see docs/nftables.md: the peer has to send first
				}
				f.name = fmt.Sprintf("%s with %s, IPv6 %t, opened by peer %t, pod sends first %t", kind, peer, f.isIPv6, f.byPeer, f.podFirst)
				f.open(r, len(flows))
				flows = append(flows, f)
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
	r.Load(pods)
	r.StartRuntime("server")
	stop := r.start()
	expect("without a policy", false, false)
	r.Load(pods + policy)
	r.IsEnforced(true)
	expect("with the first policy", ingress, egress)
	stop()
	r.start()
	expect("after a restart", ingress, egress)
	r.Load(pods)
	r.IsEnforced(false)
	expect("after the last policy", false, false)
	r.Load(pods + policy)
	r.IsEnforced(true)
	expect("with another policy", ingress, egress)
	r.in("server", func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	r.isSeeded()
	for _, f := range flows {
		if f.network() == "udp" { // a UDP socket does not prove that the policy allows its peer, so the next packet decides
			f.podFirst, f.isForgotten = !f.byPeer, true
		}
	}
	expect("after connection tracking has forgotten everything", ingress, egress)
}

// isSeeded waits until the server's connection tracking knows its connections again.
func (r *rig) isSeeded() {
	r.t.Helper()
	c, err := nfnl.Open(r.Hosts["server"].NetNS())
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	await.That(r.t, "connections are restored", func() bool {
		is, err := conntrack.IsSeeded(c)
		if err != nil {
			r.t.Error(err)
		}
		return is || err != nil
	})
}
