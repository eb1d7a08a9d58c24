package explain

import (
	"math/rand/v2"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// toldChanges are changes in lines.
func toldChanges(changes []Change) []string {
	var lines []string
	for _, c := range changes {
		place := c.Pod + " " + c.Interface + " " + c.Direction
		lines = append(lines, place+" "+string(c.Before)+" to "+string(c.After))
		for _, f := range c.Opened {
			lines = append(lines, "+ "+f.Peers.String()+": "+f.Ports.String())
		}
		for _, f := range c.Closed {
			lines = append(lines, "- "+f.Peers.String()+": "+f.Ports.String())
		}
	}
	return lines
}

func TestDiff(t *testing.T) {
	web := model.NewPod("web", "app=web", "net1 net-a 10.0.0.1")
	client := model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2 fd00::2")
	db := model.WithPorts(model.NewPeer("db", "app=db", "net1 net-a 10.0.0.3"), "sql=5432/TCP")
	policy := func(spec string) metav1.Object { return model.NewPolicy("p", "net-a", spec) }
	tests := []struct {
		name          string
		before, after []metav1.Object
		want          []string
	}{
		{"nothing", []metav1.Object{web, policy(`{}`)}, []metav1.Object{web, policy(`{}`)}, nil},
		{
			"another policy that says the same",
			[]metav1.Object{web, policy(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/31}}], ports: [{port: 80, endPort: 82}]}]}`)},
			[]metav1.Object{web, policy(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/32}}, {ipBlock: {cidr: 10.0.0.1/32}}],
				ports: [{port: 80}, {port: 82}, {port: 81}]}]}`)},
			nil,
		}, {
			"the first policy",
			[]metav1.Object{web},
			[]metav1.Object{web, policy(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 80}]}]}`)},
			[]string{
				"default/web net1 ingress open to isolated",
				"- 10.0.0.0/24: all but 80/tcp",
				"- all but 10.0.0.0/24: all",
			},
		}, {
			"a wider block with a hole, and a port moved",
			[]metav1.Object{web, policy(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 80}]}]}`)},
			[]metav1.Object{web, policy(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/23, except: [10.0.0.9/32]}}], ports: [{port: 80}, {protocol: UDP}]}]}`)},
			[]string{
				"default/web net1 ingress isolated to isolated",
				"+ 10.0.0.0-10.0.0.8, 10.0.0.10-10.0.0.255: udp",
				"+ 10.0.1.0/24: 80/tcp, udp",
				"- 10.0.0.9: 80/tcp",
			},
		}, {
			"a peer that comes, and one that goes",
			[]metav1.Object{web, client, policy(`{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}], policyTypes: [Ingress]}`)},
			[]metav1.Object{web, client, db, policy(`{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`)},
			[]string{
				"default/client net1 ingress isolated to open",
				"+ all but 10.0.0.2, fd00::2: all",
				"default/web net1 ingress isolated to isolated",
				"+ 10.0.0.3: all",
				"- 10.0.0.2, fd00::2: all",
			},
		}, {
			"a named port of a peer",
			[]metav1.Object{web, db, policy(`{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: sql}]}]}`)},
			[]metav1.Object{web, model.NewPeer("db", "app=db", "net1 net-a 10.0.0.4"), policy(`{podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {}}], ports: [{port: 5432}]}], policyTypes: [Egress]}`)},
			[]string{
				"default/web net1 egress isolated to isolated",
				"+ 10.0.0.1, 10.0.0.4: 5432/tcp",
				"- 10.0.0.3: 5432/tcp",
			},
		}, {
			"a pod that is new, and one that goes",
			[]metav1.Object{web, policy(`{ingress: [{ports: [{port: 80}]}]}`)},
			[]metav1.Object{client, policy(`{ingress: [{ports: [{port: 80}]}]}`)},
			[]string{
				"default/client net1 ingress absent to isolated", "+ all: 80/tcp",
				"default/web net1 ingress isolated to absent", "- all: 80/tcp",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Diff(newCluster(t, tt.before...), newCluster(t, tt.after...))
			if diff := cmp.Diff(tt.want, toldChanges(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			back := Diff(newCluster(t, tt.after...), newCluster(t, tt.before...))
			if len(back) != len(got) {
				t.Fatalf("back: %d changes, want %d", len(back), len(got))
			}
			for i := range back {
				if diff := cmp.Diff([]any{toldFlows(got[i].Opened), toldFlows(got[i].Closed)}, []any{toldFlows(back[i].Closed), toldFlows(back[i].Opened)}); diff != "" {
					t.Errorf("back (-there +back):\n%s", diff)
				}
			}
		})
	}
}

func toldFlows(flows []Flow) (lines []string) {
	for _, f := range flows {
		lines = append(lines, f.Peers.String()+": "+f.Ports.String())
	}
	return lines
}

// TestDiffWorlds: of every packet, the difference of two random worlds says what the tables in both do with it.
func TestDiffWorlds(t *testing.T) {
	first, packets := rand.Uint64N(1<<40), 0
	if *explainSeed != 0 {
		first = *explainSeed
	}
	for seed := first; seed < first+30; seed++ {
		w, o := model.NewWorld(seed), testOptions()
		o.AcceptICMP = w.IntN(2) == 0
		before, after := cache.New(o), cache.New(o)
		state := model.Objects{}
		for range 40 {
			state.Put(w.Object())
		}
		play(before, state.Sorted())
		for range 10 {
			state.Put(w.Object())
		}
		play(after, state.Sorted())
		for _, obj := range state.Sorted() {
			if pod, is := obj.(*corev1.Pod); is {
				packets += diffPod(t, before, after, cache.Key{Namespace: pod.Namespace, Name: pod.Name})
			}
		}
		if t.Failed() {
			t.Fatalf("-explain.seed=%d", seed)
		}
	}
	t.Logf("%d packets, the first seed %d", packets, first)
}

func diffPod(t *testing.T, before, after *cache.Cache, key cache.Key) (packets int) {
	t.Helper()
	was, is := accessOf(before, key), accessOf(after, key)
	tables := map[*cache.Cache]*model.Table{}
	for _, c := range []*cache.Cache{before, after} {
		rs, err := Preview(c, key)
		if err == nil {
			tables[c] = model.NewTable(t, rs[engine.Inet])
		}
	}
	for _, p := range model.Probes() {
		at := place{p.Iface, p.Direction}
		passes := func(c *cache.Cache, all map[place]access) bool { return all[at].state != "" && tables[c].Passes(p) }
		passed, pass := passes(before, was), passes(after, is)
		proto := p.Proto
		var opened, closed bool
		newSweep(was[at].terms, is[at].terms).run(func(r sets.AddrRange, d difference) {
			if sets.NewAddrs(r).Contains(p.Peer) {
				opened, closed = d.opened.Contains(proto, p.Port), d.closed.Contains(proto, p.Port)
			}
		})
		packets++
		if opened != (pass && !passed) || closed != (passed && !pass) {
			t.Fatalf("%s: %+v passed %v, passes %v; said is opened %v, closed %v", key, p, passed, pass, opened, closed)
		}
	}
	return packets
}
