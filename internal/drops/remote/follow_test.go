package remote

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agents"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// rig is an API server whose pods change, with an agent's Hub behind the pod of each agent.
type rig struct {
	t     *testing.T
	files *informers.Files
	api   *cluster.API
	hubs  map[string]*drops.Hub // by node
	mu    sync.Mutex
	notes []string
	shown map[string]int // packets by node, which is the direction in the packets
}

func newRig(t *testing.T, nodes ...string) *rig {
	t.Helper()
	defer func(before time.Duration) { t.Cleanup(func() { relook = before }) }(relook)
	relook = 50 * time.Millisecond
	r := &rig{t: t, files: informers.NewFiles(), hubs: map[string]*drops.Hub{}}
	var err error
	if r.api, err = cluster.NewAPI(r.files, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.api.Stop)
	for _, node := range nodes {
		r.hubs[node] = &drops.Hub{}
		server := httptest.NewServer(r.hubs[node])
		t.Cleanup(server.Close)
		r.api.SetLoopback("agent-"+node, strings.TrimPrefix(server.URL, "http://"))
	}
	return r
}

// load makes an agent run on each of the nodes, and the pod ns/web on the first.
func (r *rig) load(nodes ...string) {
	r.t.Helper()
	var text strings.Builder
	for _, node := range nodes {
		text.WriteString(strings.ReplaceAll(`---
{apiVersion: v1, kind: Pod, metadata: {namespace: agents, name: agent-NODE, uid: agent-NODE,
  labels: {app.kubernetes.io/name: multi-networkpolicy-nftables}}, spec: {nodeName: NODE, hostNetwork: true}, status: {phase: Running}}
`, "NODE", node))
	}
	text.WriteString("---\n{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: web, uid: web}, spec: {nodeName: " + nodes[0] + "}, status: {phase: Running}}\n")
	m, err := informers.Input{Paths: []string{"-"}, Stdin: strings.NewReader(text.String())}.Read(r.t.Context())
	if err == nil {
		err = r.files.Load(m)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// follow follows packets until stop is called. show is called with each packet.
func (r *rig) follow(filter drops.Filter, show func() error) (stop func() error) {
	r.t.Helper()
	client, err := agents.NewClient(r.api.Config(), "agents", 10356)
	if err != nil {
		r.t.Fatal(err)
	}
	r.notes, r.shown = nil, map[string]int{}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, Question{Agents: client, Filter: filter}, func(d drops.Drop) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.shown[d.Direction]++
			return show()
		}, func(note string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notes = append(r.notes, note)
		})
	}()
	return func() error { cancel(); return <-done }
}

// noted waits until the last note is the text.
func (r *rig) noted(text string) {
	r.t.Helper()
	await.That(r.t, text, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.notes) > 0 && r.notes[len(r.notes)-1] == text
	})
}

// reports waits until a packet of the agent on a node is shown.
func (r *rig) reports(node string) {
	r.t.Helper()
	before := r.count(node)
	await.That(r.t, "a packet of "+node, func() bool {
		r.hubs[node].Publish(drops.Drop{Namespace: "ns", Pod: "web", Direction: node})
		return r.count(node) > before
	})
}

func (r *rig) count(node string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shown[node]
}

// TestMoves follows a pod to another node, and all nodes while their number changes.
func TestMoves(t *testing.T) {
	r := newRig(t, "a", "b")
	r.load("a", "b")
	stop := r.follow(drops.Filter{Namespace: "ns", Pod: "web"}, func() error { return nil })
	r.noted("following the agents of 1 of 1 nodes")
	r.reports("a")
	r.load("b", "a")
	r.reports("b")
	r.load("a", "b")
	r.reports("a")
	if err := stop(); err != nil {
		t.Error(err)
	}
	r.load("a")
	stop = r.follow(drops.Filter{}, func() error { return nil })
	r.noted("following the agents of 1 of 1 nodes")
	r.load("a", "b")
	r.noted("following the agents of 2 of 2 nodes")
	r.reports("b")
	r.reports("a")
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestErrors: a pod that does not exist and an output that takes nothing are errors.
func TestErrors(t *testing.T) {
	r := newRig(t, "a")
	r.load("a")
	stop := r.follow(drops.Filter{Namespace: "ns", Pod: "gone"}, func() error { return nil })
	time.Sleep(200 * time.Millisecond) // a question that is canceled has no error
	if err := stop(); err == nil || err.Error() != "there is no pod ns/gone" {
		t.Errorf("a pod that does not exist: %v", err)
	}
	full := errors.New("disk full")
	stop = r.follow(drops.Filter{Namespace: "ns"}, func() error { return full })
	r.noted("following the agents of 1 of 1 nodes")
	r.reports("a")
	if err := stop(); !errors.Is(err, full) {
		t.Errorf("an output that is full: %v", err)
	}
}
