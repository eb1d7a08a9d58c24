package cache

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

func TestPluginTypes(t *testing.T) {
	tests := []struct {
		name, config string
		isolated     bool
		problem      bool
	}{
		{"a type on the list", `{"type": "macvlan"}`, true, false},
		{"a type that is not", `{"type": "flannel"}`, false, false},
		{"a chain: its first plugin", `{"name": "x", "plugins": [{"type": "bridge"}, {"type": "tuning"}]}`, true, false},
		{"a chain that starts with another", `{"plugins": [{"type": "tuning"}, {"type": "bridge"}]}`, false, false},
		{"no configuration: it is on the node's disk", ``, true, false},
		{"broken JSON", `{"type": "flannel"`, true, true},
		{"no type", `{"plugins": []}`, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, model.WebPod(), model.NewPolicy("p", "net-a", `{}`))
			nad := model.NewNAD("net-a", "")
			nad.Spec.Config = tt.config
			ps := upsert(c, nad)
			if (len(ps) > 0) != tt.problem || tt.problem && ps[0].Field != "spec.config" {
				t.Errorf("problems: %v", ps)
			}
			if got := !ruleset(c, "web").IsEmpty(); got != tt.isolated {
				t.Errorf("isolated: %v, want %v", got, tt.isolated)
			}
		})
	}
}

// A network is isolated while its type is unknown, whatever its type was before, and whatever the order of events.
func TestUnknownType(t *testing.T) {
	broken := model.NewNAD("net-a", "")
	broken.Spec.Config = "{"
	for _, was := range []string{"macvlan", "flannel"} {
		for name, end := range map[string]func(*Cache){
			"broken": func(c *Cache) { upsert(c, broken) },
			"gone":   func(c *Cache) { remove(c, broken) },
		} {
			t.Run(was+" "+name, func(t *testing.T) {
				c := newCluster(t, model.NewNAD("net-a", was), model.WebPod(), model.NewPolicy("p", "net-a", `{}`))
				if isolated := !ruleset(c, "web").IsEmpty(); isolated != (was == "macvlan") {
					t.Fatalf("isolated: %v", isolated)
				}
				end(c)
				wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80")
				upsert(c, model.With(model.WebPod(), func(p *corev1.Pod) { p.UID = "another" }))
				wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80")
			})
		}
	}
}

// Definitions are looked at when they change, and only pods on the network notice.
func TestNADThatChanges(t *testing.T) {
	c := newCluster(t, model.NewNAD("net-a", "macvlan"), model.WebPod(), model.NewPod("db", "app=db", "net1 net-b 10.9.0.2"),
		model.NewPod("idle/x", "", "net1 default/net-a 10.0.0.8"), model.NewPolicy("p", "net-a, net-b", `{}`))
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80", "drop ingress net2 10.0.0.2 tcp 80")
	upsert(c, model.NewNAD("net-a", "macvlan"))
	upsert(c, model.NewNAD("net-a", "bridge"))
	wantDirty(t, c, "a type that is isolated like the one before")
	upsert(c, model.NewNAD("net-a", "flannel"))
	wantDirty(t, c, "a type that is not isolated", "web")
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.2 tcp 80", "drop ingress net2 10.0.0.2 tcp 80")
	upsert(c, model.NewNAD("net-a", "macvlan"))
	wantDirty(t, c, "a type that is", "web")
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80")
}

// Peers on a network that is not isolated are peers all the same.
func TestPeersOnOtherNetworks(t *testing.T) {
	c := newCluster(t, model.NewNAD("net-b", "flannel"), model.WebPod(), model.NewPeer("x", "", "net1 net-b 10.9.0.2"),
		model.NewPolicy("p", "net-a, net-b", `{ingress: [{from: [{podSelector: {}}]}]}`))
	wantPackets(t, c, "web", "pass ingress net1 10.9.0.2 tcp 80", "drop ingress net1 10.9.0.3 tcp 80",
		"pass ingress net2 10.9.0.3 tcp 80")
}
