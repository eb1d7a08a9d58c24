package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// annotated is the cluster with an annotation on the server's pod.
func annotated(value string) string {
	return strings.Replace(node.Cluster, "labels: {app: server}, annotations: {",
		"labels: {app: server}, annotations: {\n  multi-networkpolicy/trace: '"+value+"',", 1) + node.Policy
}

// An annotation has the agent trace a pod: packets and what decides on them are in the log, until the time is over or
// the annotation is gone. One that makes no sense is told.
func TestTraceAnnotation(t *testing.T) {
	r := newRig(t)
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.Load(node.Cluster + node.Policy)
	log := &node.Log{}
	r.startWith(log.Logger())
	r.Becomes("enforced", true, false)
	said := ""
	says := func(what ...string) bool {
		said += log.Take(1000)
		for line := range strings.Lines(said) {
			all := true
			for _, w := range what {
				all = all && strings.Contains(line, w)
			}
			if all {
				return true
			}
		}
		return false
	}
	traced := func() bool {
		out, err := nft.Run(r.Hosts["server"], "", "list", "tables")
		if err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		return strings.Contains(out, trace.TableName)
	}

	r.Load(annotated("--protocol icmp --duration 5m"))
	await.That(t, "a trace of five minutes", traced)
	r.Load(node.Cluster + node.Policy)
	await.That(t, "no trace without the annotation", func() bool { return !traced() })

	r.Load(annotated("--from 10.9.0.3 --port 80 --duration 3s"))
	await.That(t, "a trace of three seconds", traced)
	for !says(`"msg"="Packet" "pod"="ns/server"`, "10.9.0.3", `"verdict"="denied"`, `"decidedBy"="chain ingress-net1"`) {
		if !traced() {
			t.Fatalf("the packet is not told:\n%s", said)
		}
		r.Reaches("stranger", 200*time.Millisecond)
		r.Reaches("friend", time.Second)
	}
	if says(`"msg"="Packet"`, "tcp 10.9.0.2") {
		t.Error("a packet that was not asked for is told")
	}
	await.That(t, "the end of the trace", func() bool { return !traced() && says("The trace has ended") })
	time.Sleep(300 * time.Millisecond)
	if traced() {
		t.Error("traced again without another annotation")
	}
	r.Load(annotated("--netns /run/netns/x"))
	await.That(t, "the mistake is told", func() bool { return says("asks for a trace that cannot be", "--netns /run/netns/x") })
	for i := range 10 { // over the budget of the pod
		r.Load(annotated(fmt.Sprint("--limit 0 --port ", i)))
		time.Sleep(20 * time.Millisecond)
	}
	if traced() {
		t.Error("a mistake is traced")
	}
	if n := strings.Count(said+log.Take(1000), "asks for a trace that cannot be"); n > podTraces {
		t.Errorf("%d mistakes are told, over the budget of the pod", n)
	}
}

func TestParseTrace(t *testing.T) {
	for _, text := range []string{"--port x", "everything", "--netns /run/netns/x", "--duration 6m", "--limit 51", "--limit 0"} {
		if _, _, err := parseTrace(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if o, _, err := parseTrace("--port 80 --duration 5m --limit 50"); err != nil || o.Port != 80 {
		t.Error(o, err)
	}
}
