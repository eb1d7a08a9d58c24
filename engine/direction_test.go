package engine

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func TestDirection(t *testing.T) {
	for _, tt := range []struct {
		direction, opposite Direction
		text                string
		hook                Hook
		iface, peer         string
	}{
		{Ingress, Egress, "ingress", HookInput, `iifname "net1"`, "ip saddr @peers"},
		{Egress, Ingress, "egress", HookOutput, `oifname "net1"`, "ip daddr @peers"},
	} {
		d := tt.direction
		if d.Opposite() != tt.opposite || d.String() != tt.text || d.Hook() != tt.hook {
			t.Errorf("%v: opposite %v, hook %q", d, d.Opposite(), d.Hook())
		}
		if got := d.OnInterface("net1").Text; got != tt.iface {
			t.Errorf("%v: interface match %q, want %q", d, got, tt.iface)
		}
		if got := d.PeerIn(sets.V4, "peers").Text; got != tt.peer {
			t.Errorf("%v: peer match %q, want %q", d, got, tt.peer)
		}
	}
}
