package engine

import (
	"slices"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

func TestDirection(t *testing.T) {
	for _, tt := range []struct {
		direction, opposite Direction
		text                string
		hooks               []Hook
		iface, peer         string
	}{
		{Ingress, Egress, "ingress", []Hook{HookPrerouting}, `iifname "net1"`, "ip saddr @peers"},
		{Egress, Ingress, "egress", []Hook{HookForward, HookOutput}, `oifname "net1"`, "ip daddr @peers"},
	} {
		d := tt.direction
		if d.Opposite() != tt.opposite || d.String() != tt.text || !slices.Equal(d.Hooks(), tt.hooks) {
			t.Errorf("%v: opposite %v, hooks %q", d, d.Opposite(), d.Hooks())
		}
		if got := d.OnInterface("net1").Text; got != tt.iface {
			t.Errorf("%v: interface match %q, want %q", d, got, tt.iface)
		}
		if got := d.PeerIn(sets.V4, "peers").Text; got != tt.peer {
			t.Errorf("%v: peer match %q, want %q", d, got, tt.peer)
		}
	}
}
