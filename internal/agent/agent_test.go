package agent

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// The agent as a whole, over real sockets and a real kernel: it waits for an API server and a runtime that are not there
// yet, enforces, reports what is wrong with a policy, keeps everything in force when it loses them and when it ends, and
// takes up what changed meanwhile when it starts again.
func TestAgent(t *testing.T) {
	r := newRig(t)
	r.Load(node.Cluster + node.Policy)
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1,
		Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	r.API.Stop()
	stop := r.start()
	time.Sleep(300 * time.Millisecond)
	r.Stays("open before anything is known", true, true)
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	r.Stays("open before the API server is known", true, true)
	if err := r.API.Start(); err != nil {
		t.Fatal(err)
	}
	r.Becomes("enforced", true, false)
	// An error that answers a packet of the pod passes, from whom nothing else does.
	refused := lab.Probe(t.Context(), r.Hosts["server"], netip.MustParseAddrPort("10.9.0.3:9"), lab.UDP, 10*time.Second)
	if !errors.Is(refused.Err, unix.ECONNREFUSED) {
		t.Errorf("the ICMP error to the server's own packet: %+v", refused)
	}
	for deadline := time.Now().Add(10 * time.Second); len(r.API.Events()) == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	events := r.API.Events()
	if len(events) != 1 || events[0].InvolvedObject.Name != "p" || !strings.Contains(events[0].Message, "10.9.0.0/33") {
		t.Errorf("events: %+v", events)
	}

	r.API.Stop()
	r.Runtime.Stop()
	r.Stays("enforced without API server and runtime", true, false)
	time.Sleep(3 * time.Second) // the pauses between tries grow
	stop()
	r.Stays("enforced without the agent", true, false)

	if err := r.API.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.Load(strings.ReplaceAll(node.Cluster+node.Policy, "app: friend}}}", "app: nobody}}}"))
	stop = r.start()
	r.Becomes("the change made meanwhile", false, false)
	stop()
	r.Load(node.Cluster)
	stop = r.start()
	r.Becomes("the deletion made meanwhile", true, true)
	r.Load(node.Cluster + node.Policy)
	r.Becomes("enforced again", true, false)
	r.Load(node.Cluster)
	r.Becomes("open again", true, true)
	stop()
}
