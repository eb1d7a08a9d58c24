package cache

import (
	"errors"
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

var explainSeed = flag.Uint64("explain.seed", 0, "the only seed of the test of explanations; 0: random ones")

// TestExplainWorlds: in random worlds Explain says of every packet what the table does with it, and the rule that it
// names is one that accepts the packet there.
func TestExplainWorlds(t *testing.T) {
	seeds := []uint64{*explainSeed}
	if *explainSeed == 0 {
		seeds = seeds[:0]
		for range 60 {
			seeds = append(seeds, rand.Uint64N(1<<40))
		}
	}
	total := 0
	for _, seed := range seeds {
		n := explainWorld(t, seed)
		total += n
		if t.Failed() {
			t.Fatalf("-explain.seed=%d", seed)
		}
	}
	t.Logf("%d packets in %d worlds, the first of seed %d", total, len(seeds), seeds[0])
}

func explainWorld(t *testing.T, seed uint64) (packets int) {
	w, state := newWorld(seed), objects{}
	for range 40 {
		state.put(w.object())
	}
	o := testOptions()
	o.AcceptICMP, o.AcceptICMPv6 = w.IntN(3) == 0, w.IntN(3) == 0
	for _, prefixes := range []*sets.Addrs{&o.Ingress.Sources, &o.Egress.Destinations} {
		if w.IntN(3) == 0 {
			*prefixes = sets.NewAddrs(sets.Single(newPacket("ingress net1 " + pick(w, worldAddrs...) + " icmp").peer))
		}
	}
	c := New(o)
	play(c, shuffled(w, state.sorted()))
	readAll(c)
	all := probes()
	for _, ip := range []string{"fd00::1", "fd01::1"} {
		for _, kind := range []string{"128", "130", "136", "137", "143"} {
			all = append(all, newPacket("ingress net1 "+ip+" icmpv6 "+kind), newPacket("egress net2 "+ip+" icmpv6 "+kind))
		}
	}
	for _, obj := range state.sorted() {
		pod, is := obj.(*corev1.Pod)
		if !is || pod.Spec.NodeName != testNode && pod.Annotations[networksAnnotation] != "" { // c knows no pod that only asks, elsewhere
			continue
		}
		o.Node = pod.Spec.NodeName
		here := New(o)
		play(here, state.sorted())
		packets += explainPod(t, w, c, here, pod, all)
	}
	checkEmpty(t, c, state)
	return packets
}

// explainPod compares what is said of a pod with its table: the one that the agent of its node would make.
func explainPod(t *testing.T, w world, c, here *Cache, pod *corev1.Pod, all []packet) (packets int) {
	t.Helper()
	key := Key{Namespace: pod.Namespace, Name: pod.Name}
	ruleset := here.Ruleset(key)
	preview, err := c.Preview(key)
	if diff := cmp.Diff(render(t, ruleset), render(t, preview)); diff != "" {
		t.Fatalf("%s: the preview (%v) is another (-want +got):\n%s", key, err, diff)
	}
	tb := newTable(t, ruleset)
	w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, p := range all[:100] {
		got, err := c.Explain(Query{
			Pod: key, Interface: p.iface, Direction: p.direction, Remote: p.peer, Protocol: p.proto, Port: p.port,
			ICMPType: uint8(max(p.icmpv6Type, 0)),
		})
		if errors.Is(err, ErrNoPod) || errors.Is(err, ErrNoInterface) {
			if !tb.passes(p) {
				t.Fatalf("%s: %+v does not pass, but: %v", key, p, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		packets++
		checkExplanation(t, tb, p, got.Interfaces[0])
	}
	return packets
}

func checkExplanation(t *testing.T, tb *table, p packet, got InterfaceExplanation) {
	t.Helper()
	if passes := tb.passes(p); passes != (got.Verdict == Allowed) {
		t.Fatalf("%+v passes: %v; said is %+v", p, passes, got)
	}
	if guarded := tb.chains[interfaceChainName(p.direction, p.iface)] != nil; guarded != got.Isolated {
		t.Fatalf("%+v isolated: %v; said is %+v", p, guarded, got)
	}
	accepts := map[string]bool{"no rule": true, "no policy": true}
	if got.Isolated {
		common := tb.walk(tb.chains["common-"+p.direction.String()], p) == "accept"
		for _, by := range []string{"neighbor discovery", "--accept-icmp", "--accept-icmpv6", "allowed source prefixes", "allowed destination prefixes"} {
			accepts[by] = common
		}
	}
	for _, c := range tb.chains {
		for _, r := range c.Rules {
			if tb.rule(r, p) == "accept" {
				accepts[r.Comment] = true
			}
		}
	}
	if !accepts[got.DecidedBy] {
		t.Fatalf("%+v: %q does not decide it: %+v", p, got.DecidedBy, got)
	}
	for _, policy := range got.Policies {
		if policy.Isolates == (policy.Reason != "") {
			t.Fatalf("%+v: isolates, or a reason why not: %+v", p, policy)
		}
		for _, r := range policy.Rules {
			if r.Allows != accepts[policy.Policy+" "+r.Rule] || r.Reason == "" {
				t.Fatalf("%+v: of %s is said %+v", p, policy.Policy, r)
			}
		}
	}
}
