package cache

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// heapAtLimits is the heap of a cache whose policies and groups are at the limits of the node, in MiB, rounded up. docs/limits.md
// has it: the memory limit of the agent must cover it.
const heapAtLimits = 120

// TestHeapAtLimits fills a cache up to node-items and node-members, and measures the heap.
func TestHeapAtLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the test takes some seconds and was run with -short")
	}
	before := liveHeap()
	o := testOptions()
	o.Limits = policy.DefaultLimits()
	c := New(o)
	upsert(c, model.NewNAD("net", "macvlan"))
	namespaces := o.Limits.NodeMembers / o.Limits.NamespaceMembers
	const peers, groups = 2_000, 120
	for n := range namespaces {
		ns := fmt.Sprintf("ns-%d", n)
		for i := range peers {
			upsert(c, model.NewPeer(fmt.Sprintf("%s/peer-%d", ns, i), "app=peer", fmt.Sprintf("net1 default/net 10.%d.%d.%d", n, i>>7, i<<1&255)))
		}
		upsert(c, model.NewPod(ns+"/web", "app=web", "net1 default/net 10.200.0.1"))
		for i := range groups {
			spec := fmt.Sprintf(`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}, {podSelector: {matchLabels: {app: x%d}}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}`, i)
			c.UpsertPolicy(policy.Compile(policy.ObjectOf(model.NewPolicy(fmt.Sprintf("%s/g-%d", ns, i), "default/net", spec)), c.limits))
		}
		settle(c)
	}
	t.Logf("%d members: %d MiB", c.members, (liveHeap()-before)>>20)
	if c.members < o.Limits.NodeMembers*9/10 {
		t.Errorf("%d members", c.members)
	}
	for n := 0; c.wanted+40_000 <= o.Limits.NodeItems; n++ {
		ns := fmt.Sprintf("items-%d", n)
		upsert(c, model.NewPod(ns+"/web", "app=web", "net1 default/net 10.200.0.1"))
		for i := range 2 {
			var blocks []string
			for k := range 9_500 {
				blocks = append(blocks, fmt.Sprintf("{ipBlock: {cidr: 10.%d.%d.%d/32}}", i, k>>7, k<<1&255))
			}
			for k := range 4 {
				spec := `{podSelector: {}, ingress: [{from: [` + strings.Join(blocks[k*2_375:(k+1)*2_375], ",") + `]}]}`
				c.UpsertPolicy(policy.Compile(policy.ObjectOf(model.NewPolicy(fmt.Sprintf("%s/p-%d-%d", ns, i, k), "default/net", spec)), c.limits))
			}
		}
		settle(c)
	}
	got := (liveHeap() - before) >> 20
	t.Logf("%d items, %d members: %d MiB", c.wanted, c.members, got)
	if got > heapAtLimits {
		t.Errorf("the heap is %d MiB", got)
	}
	runtime.KeepAlive(c)
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
