package explain

import (
	"errors"
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

var explainSeed = flag.Uint64("explain.seed", 0, "the only seed of the test of explanations; 0: random ones")

// TestExplainWorlds: in random worlds Explain says of every packet what the table does with it, and the rule that it
// names is a rule that accepts the packet there.
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
	w, state := model.NewWorld(seed), model.Objects{}
	for range 40 {
		state.Put(w.Object())
	}
	o := testOptions()
	o.AcceptICMP, o.AcceptICMPv6 = w.IntN(3) == 0, w.IntN(3) == 0
	for _, prefixes := range []*sets.Addrs{&o.Ingress.Sources, &o.Egress.Destinations} {
		if w.IntN(3) == 0 {
			*prefixes = sets.NewAddrs(sets.Single(model.NewPacket("ingress net1 " + model.Pick(w, model.WorldAddrs...) + " icmp").Peer))
		}
	}
	c := cache.New(o)
	play(c, model.Shuffled(w, state.Sorted()))
	settle(c)
	all := model.Probes()
	for _, ip := range []string{"fd00::1", "fd01::1"} {
		for _, kind := range []string{"128", "130", "136", "137", "143"} {
			all = append(all, model.NewPacket("ingress net1 "+ip+" icmpv6 "+kind), model.NewPacket("egress net2 "+ip+" icmpv6 "+kind))
		}
	}
	for _, obj := range state.Sorted() {
		pod, is := obj.(*corev1.Pod)
		if !is {
			continue
		}
		o.Node = pod.Spec.NodeName
		here := cache.New(o)
		play(here, state.Sorted())
		packets += explainPod(t, w, c, here, pod, all)
	}
	return packets
}

// explainPod compares the explanation of a pod with the table that the agent of its node would make.
func explainPod(t *testing.T, w model.World, c, here *cache.Cache, pod *corev1.Pod, all []model.Packet) (packets int) {
	t.Helper()
	key := cache.Key{Namespace: pod.Namespace, Name: pod.Name}
	ruleset := rulesetOf(here, key)
	preview, err := Preview(c, key)
	if diff := cmp.Diff(render(t, ruleset), render(t, preview[engine.Inet])); diff != "" {
		t.Fatalf("%s: the preview (%v) is another (-want +got):\n%s", key, err, diff)
	}
	tb := model.NewTable(t, ruleset)
	w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, p := range all[:100] {
		got, err := Explain(c, Query{
			Pod: key, Interface: p.Iface, Direction: p.Direction, Remote: p.Peer, Protocol: p.Proto, Port: p.Port,
			ICMPType: uint8(max(p.Icmpv6Type, 0)),
		})
		if errors.Is(err, ErrNoPod) || errors.Is(err, ErrNoInterface) {
			if !tb.Passes(p) {
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

func checkExplanation(t *testing.T, tb *model.Table, p model.Packet, got InterfaceExplanation) {
	t.Helper()
	if passes := tb.Passes(p); passes != (got.Verdict == Allowed) {
		t.Fatalf("%+v passes: %v; said is %+v", p, passes, got)
	}
	if guarded := tb.Chains[engine.InterfaceChain(p.Direction, p.Iface)] != nil; guarded != got.Isolated {
		t.Fatalf("%+v isolated: %v; said is %+v", p, guarded, got)
	}
	accepts := map[string]bool{"no rule": true, "no policy": true}
	if got.Isolated {
		common := tb.Walk(tb.Chains["common-"+p.Direction.String()], p) == "accept"
		for _, by := range []string{"neighbor discovery", "--accept-icmp", "--accept-icmpv6", "allowed source prefixes", "allowed destination prefixes"} {
			accepts[by] = common
		}
	}
	tb.Accepting(tb.Chains[engine.InterfaceChain(p.Direction, p.Iface)], p, accepts)
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
