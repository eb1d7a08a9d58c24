package cache

import "testing"

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
			c := newCluster(t, webPod(), newPolicy("p", "net-a", `{}`))
			nad := newNAD("net-a", "")
			nad.Spec.Config = tt.config
			ps := c.UpsertNAD(nad)
			if (len(ps) > 0) != tt.problem || tt.problem && ps[0].Field != "spec.config" {
				t.Errorf("problems: %v", ps)
			}
			if got := !c.Ruleset(keyOf("web")).IsEmpty(); got != tt.isolated {
				t.Errorf("isolated: %v, want %v", got, tt.isolated)
			}
		})
	}
}

// A definition that cannot be read, or is gone, changes nothing while pods are attached.
func TestNADThatGoes(t *testing.T) {
	broken := newNAD("net-a", "")
	broken.Spec.Config = "{"
	for _, was := range []string{"macvlan", "flannel"} {
		t.Run(was, func(t *testing.T) {
			c := newCluster(t, newNAD("net-a", was), webPod(), newPolicy("p", "net-a", `{}`))
			before := renderPod(t, c, "web")
			if (before != "") != (was == "macvlan") {
				t.Fatalf("table: %q", before)
			}
			c.UpsertNAD(broken)
			wantDirty(t, c, "a definition that cannot be read")
			c.DeleteNAD(keyOf("net-a"))
			wantDirty(t, c, "the end of a definition")
			if after := renderPod(t, c, "web"); after != before {
				t.Errorf("without definition: %q, want %q", after, before)
			}
			// Once nothing is attached, nothing is remembered.
			c.DeletePod(keyOf("web"))
			c.UpsertPod(webPod())
			if c.Ruleset(keyOf("web")).IsEmpty() {
				t.Error("a network of no known type is not isolated")
			}
		})
	}
}

// Definitions are looked at when they change, and only pods on the network notice.
func TestNADThatChanges(t *testing.T) {
	c := newCluster(t, newNAD("net-a", "macvlan"), webPod(), newPod("db", "app=db", "net1 net-b 10.9.0.2"),
		newPod("idle/x", "", "net1 default/net-a 10.0.0.8"), newPolicy("p", "net-a, net-b", `{}`))
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80", "drop ingress net2 10.0.0.2 tcp 80")
	c.UpsertNAD(newNAD("net-a", "macvlan"))
	c.UpsertNAD(newNAD("net-a", "bridge"))
	wantDirty(t, c, "a type that is isolated like the one before")
	c.UpsertNAD(newNAD("net-a", "flannel"))
	wantDirty(t, c, "a type that is not isolated", "web")
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.2 tcp 80", "drop ingress net2 10.0.0.2 tcp 80")
	c.UpsertNAD(newNAD("net-a", "macvlan"))
	wantDirty(t, c, "a type that is", "web")
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80")
}

// Peers on a network that is not isolated are peers all the same.
func TestPeersOnOtherNetworks(t *testing.T) {
	c := newCluster(t, newNAD("net-b", "flannel"), webPod(), newPeer("x", "", "net1 net-b 10.9.0.2"),
		newPolicy("p", "net-a, net-b", `{ingress: [{from: [{podSelector: {}}]}]}`))
	wantPackets(t, c, "web", "pass ingress net1 10.9.0.2 tcp 80", "drop ingress net1 10.9.0.3 tcp 80",
		"pass ingress net2 10.9.0.3 tcp 80")
}
