package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// The friend may talk to the server, and the server to the friend; the stranger may always.
const bothWays = node.Cluster + `
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: p, uid: p,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress],
    ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}, {ipBlock: {cidr: 10.9.0.3/32}}], ports: [{port: 80}, {protocol: UDP, port: 80}]}],
    egress: [{to: [{podSelector: {matchLabels: {app: friend}}}], ports: [{protocol: UDP, port: 90}]}]}}
`

var neitherWay = strings.ReplaceAll(bothWays, "matchLabels: {app: friend}", "matchLabels: {app: nobody}")

// connection is a connected socket.
type connection struct {
	net.Conn
	t *testing.T
}

func (r *rig) dial(from, network, to string) connection {
	r.t.Helper()
	f := connection{t: r.t}
	err := r.Hosts[from].Do(func() (err error) {
		f.Conn, err = net.DialTimeout(network, to, 10*time.Second)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return f
}

// passes says whether something that is sent is received at the other end, or what comes back of it here.
func (f connection) passes(received net.Conn, patience time.Duration) bool {
	f.t.Helper()
	if err := drain(received); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		return false
	}
	return f.check(received.SetReadDeadline(time.Now().Add(patience))) && f.reads(received)
}

func (f connection) check(err error) bool {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return true
}

func (f connection) reads(c net.Conn) bool {
	_, err := c.Read(make([]byte, 64))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		f.t.Fatal(err)
	}
	return err == nil
}

// drain forgets what was received.
func drain(c net.Conn) error {
	for {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 64)); err != nil {
			return nil //nolint:nilerr // there is no more
		}
	}
}

const (
	soon  = 10 * time.Second
	never = 400 * time.Millisecond
)

// What becomes of connections when their permission goes: with keep they go on, with revoke they stop in both directions,
// and those that are allowed do not notice. One that is allowed again goes on.
func TestEstablished(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		t.Run(fmt.Sprintf("revoke %t", revoke), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.config.Cache.RevokeEstablished = revoke
			r.Runtime.Set(cluster.Sandbox{
				ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
			})
			if err := r.Runtime.Start(); err != nil {
				t.Fatal(err)
			}
			if err := r.Hosts["server"].Serve(t.Context(), lab.UDP, 80); err != nil {
				t.Fatal(err)
			}
			r.Load(neitherWay)
			r.start()
			r.Becomes("enforced", false, true)
			r.Load(bothWays)
			r.Becomes("allowed", true, true)
			friend, stranger := r.dial("friend", "tcp", "10.9.0.1:80"), r.dial("stranger", "tcp", "10.9.0.1:80")
			datagrams := r.dial("friend", "udp", "10.9.0.1:80")
			out, answers := r.answered()
			for name, f := range map[string]connection{"friend": friend, "stranger": stranger, "datagrams": datagrams} {
				if !f.passes(f, soon) {
					t.Errorf("%s: nothing comes back while it is allowed", name)
				}
			}
			if !answers.passes(out, soon) {
				t.Error("an answer to the server does not arrive while it is allowed")
			}

			r.Load(neitherWay)
			r.Becomes("no new ones", false, true)
			kept, patience := !revoke, never
			if kept {
				patience = soon
			}
			if friend.passes(friend, patience) != kept {
				t.Errorf("the connection goes on: %v", !kept)
			}
			if datagrams.passes(datagrams, patience) != kept {
				t.Errorf("datagrams go on: %v", !kept)
			}
			if answers.passes(out, patience) != kept {
				t.Errorf("answers go on: %v", !kept)
			}
			if !stranger.passes(stranger, soon) {
				t.Error("a connection that is allowed is broken")
			}

			r.Load(bothWays)
			r.Becomes("allowed again", true, true)
			if !friend.passes(friend, soon) || !datagrams.passes(datagrams, soon) || !answers.passes(out, soon) {
				t.Error("what is allowed again does not go on")
			}
		})
	}
}

// answered makes the server send to the friend's port, and returns the server's end and, to answer from, the friend's.
func (r *rig) answered() (server, friend connection) {
	r.t.Helper()
	server = r.dial("server", "udp", "10.9.0.2:90")
	local, ok := server.LocalAddr().(*net.UDPAddr)
	if !ok {
		r.t.Fatalf("%v", server.LocalAddr())
	}
	var c net.Conn
	err := r.Hosts["friend"].Do(func() (err error) {
		c, err = net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 9, 0, 2), Port: 90}, local)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	friend = connection{c, r.t}
	if !server.passes(friend, soon) {
		r.t.Fatal("the server does not reach the friend")
	}
	return server, friend
}
