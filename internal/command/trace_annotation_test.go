package command

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/testcluster"
)

// annotated is the cluster with an annotation on the server's pod.
func annotated(value string) string {
	return strings.Replace(agentCluster, "labels: {app: server}, annotations: {",
		"labels: {app: server}, annotations: {\n  multi-networkpolicy/trace: '"+value+"',", 1) + agentPolicy
}

// An annotation has the agent trace a pod: packets and what decides on them are in the log, until the time is over or
// the annotation is gone. One that makes no sense is told.
func TestTraceAnnotation(t *testing.T) {
	r := newRig(t)
	r.runtime.Set(testcluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: testcluster.InfoOf(r.hosts["server"].NetNS()),
	})
	if err := r.runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.load(agentCluster + agentPolicy)
	log := &recorder{}
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), log.logger()))
	done := make(chan error, 1)
	go func() { done <- r.agent.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	r.becomes("enforced", true, false)
	said := ""
	says := func(what ...string) bool {
		said += log.tail(1000)
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
		out, err := tryNFT(r.hosts["server"], "list", "tables")
		if err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		return strings.Contains(out, engine.TraceTableName)
	}

	r.load(annotated("--protocol icmp --duration 1h"))
	eventually(t, "a trace of an hour", traced)
	r.load(agentCluster + agentPolicy)
	eventually(t, "no trace without the annotation", func() bool { return !traced() })

	r.load(annotated("--from 10.9.0.3 --port 80 --duration 3s"))
	eventually(t, "a trace of three seconds", traced)
	for !says(`"msg"="Packet" "pod"="ns/server"`, "10.9.0.3", `"verdict"="denied"`, `"decidedBy"="chain ingress-net1"`) {
		if !traced() {
			t.Fatalf("the packet is not told:\n%s", said)
		}
		r.reaches("stranger", 200*time.Millisecond)
		r.reaches("friend", time.Second)
	}
	if says(`"msg"="Packet"`, "tcp 10.9.0.2") {
		t.Error("a packet that was not asked for is told")
	}
	eventually(t, "the end of the trace", func() bool { return !traced() && says("The trace has ended") })
	time.Sleep(300 * time.Millisecond)
	if traced() {
		t.Error("traced again without another annotation")
	}
	for _, value := range []string{"--port x", "everything", "--netns /run/netns/x", "--duration 2h"} {
		r.load(annotated(value))
		eventually(t, "the mistake is told", func() bool { return says("asks for a trace that cannot be", value) })
	}
	if traced() {
		t.Error("a mistake is traced")
	}
}
