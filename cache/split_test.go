package cache

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// splitCluster has a policy for two local pods, with pods and a block as peers.
func splitCluster(t *testing.T, o Options) *Cache {
	t.Helper()
	c := New(o)
	upsert(c, model.NewNAD("net-a", "macvlan"))
	for _, name := range []string{"web", "web-2"} {
		upsert(c, model.NewPod(name, "app=web", "net1 net-a 10.200.0.1"))
	}
	ps := upsert(c, model.NewPolicy("p", "net-a", `
podSelector: {matchLabels: {app: web}}
policyTypes: [Ingress, Egress]
ingress:
- from: [{podSelector: {matchLabels: {app: peer}}}, {ipBlock: {cidr: 10.0.0.0/28, except: [10.0.0.8/32]}}]
  ports: [{port: 80}]
`))
	if ps != nil {
		t.Fatal(ps)
	}
	return c
}

func scatteredPeer(i int) *corev1.Pod {
	return model.NewPeer(fmt.Sprintf("peer-%d", i), "app=peer", "net1 net-a "+scatteredAddr(i))
}

// scatteredAddr is the address of peer i, which is no neighbor of another.
func scatteredAddr(i int) string { return fmt.Sprintf("10.0.%d.%d", i>>7, i<<1&255) }

// groupSetsOf returns the sets of the only peer group of a pod in IPv4. pods is nil if there is one set.
func groupSetsOf(t *testing.T, c *Cache, pod string) (set, pods *engine.Set) {
	t.Helper()
	rs := ruleset(c, pod)
	for _, s := range rs.Sets {
		switch {
		case strings.HasPrefix(s.Name, "peers-") && strings.HasSuffix(s.Name, "-v4"):
			set = s
		case strings.HasPrefix(s.Name, "peers-") && strings.HasSuffix(s.Name, "-v4-pods"):
			pods = s
		}
	}
	if set == nil || pods != nil && pods.Name != engine.PodsSet(set.Name) {
		t.Fatalf("sets %v", setNames(rs))
	}
	if !slices.IsSortedFunc(rs.Sets, func(a, b *engine.Set) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("not sorted: %v", setNames(rs))
	}
	return set, pods
}

// TestGroupIsSplit grows and shrinks a group across both bounds. The packets that pass follow its members all the time.
func TestGroupIsSplit(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		o := testOptions()
		o.RevokeEstablished = revoke
		c := splitCluster(t, o)
		for i := range 505 {
			upsert(c, scatteredPeer(i))
		}
		// The block is one range: 10.0.0.8, the address that it excepts, is a peer. 497 peers are outside of the block.
		checkGroup(t, c, 505, false)
		for i := 505; i < 530; i++ {
			upsert(c, scatteredPeer(i))
		}
		checkGroup(t, c, 530, true)
		blocks, _ := groupSetsOf(t, c, "web")
		for i := 530; i > 140; i-- {
			c.DeletePod(model.KeyOf(fmt.Sprintf("default/peer-%d", i-1)))
		}
		checkGroup(t, c, 140, true)
		if now, _ := groupSetsOf(t, c, "web"); now != blocks {
			t.Error("the set of blocks changed with the pods")
		}
		for i := 140; i > 100; i-- {
			c.DeletePod(model.KeyOf(fmt.Sprintf("default/peer-%d", i-1)))
		}
		checkGroup(t, c, 100, false)
	}
}

// checkGroup checks the sets of the group with peers 0 to n-1 in both pods, and the packets that pass.
func checkGroup(t *testing.T, c *Cache, n int, split bool) {
	t.Helper()
	dirty := c.TakeDirty()
	if len(dirty) != 2 {
		t.Errorf("%d peers: dirty pods %v", n, dirty)
	}
	set, pods := groupSetsOf(t, c, "web")
	if isSplit := pods != nil; isSplit != split {
		t.Fatalf("%d peers: split %v", n, isSplit)
	}
	if split {
		blocks, all := set.Elements.(engine.Addrs).Addrs, pods.Elements.(engine.Hosts)
		if blocks.Len(sets.V4) != 2 || all.Count != engine.NewHosts(sets.V4, all.Addrs).Count || all.Addrs.Len(sets.V4) != all.Count {
			t.Errorf("%d ranges of blocks, %d addresses of pods", blocks.Len(sets.V4), all.Count)
		}
	}
	one, two := ruleset(c, "web"), ruleset(c, "web-2")
	if !slices.Equal(one.Sets, two.Sets) {
		t.Errorf("%d peers: two pods have other sets", n)
	}
	for _, chain := range one.Chains {
		if name, _ := engine.ParseChain(chain.Name); name.Kind == engine.KindPolicy && !slices.Contains(two.Chains, chain) {
			t.Errorf("%d peers: two pods have another chain %s", n, chain.Name)
		}
	}
	if c.options.RevokeEstablished {
		if looked := strings.Contains(renderPod(t, c, "web"), "ip daddr @"+engine.PodsSet(set.Name)+" "); looked != split {
			t.Errorf("%d peers: replies to pods are looked up: %v", n, looked)
		}
		return // the model has no replies
	}
	last, next := scatteredAddr(n-1), scatteredAddr(n)
	wantPackets(t, c, "web",
		"pass ingress net1 10.0.0.3 tcp 80", "pass ingress net1 10.0.0.8 tcp 80", "drop ingress net1 10.0.0.17 tcp 80",
		"pass ingress net1 "+last+" tcp 80", "drop ingress net1 "+last+" tcp 81", "drop ingress net1 "+next+" tcp 80")
}

// TestSplitBounds: a group is split for many ranges, but not for long rows of addresses. Between the bounds it stays as it is.
func TestSplitBounds(t *testing.T) {
	for _, tt := range []struct {
		was           bool
		ranges, hosts int
		want          bool
	}{
		{false, 512, 512, false},
		{false, 513, 513, true},
		{true, 128, 128, true},
		{true, 127, 127, false},
		{false, 1000, 0, false}, // only blocks
		{true, 1000, 0, true},
		{false, 1000, 4000, true},
		{false, 1000, 4001, false},
		{true, 1000, 8000, true},
		{true, 1000, 8001, false},
	} {
		if got := defaultSplit.isSplit(tt.was, tt.ranges, tt.hosts); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
