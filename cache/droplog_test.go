package cache

import (
	"fmt"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// TestReportIsBounded: a Report names a few policies, however many isolate the interface: it is made for each reported packet.
func TestReportIsBounded(t *testing.T) {
	for _, n := range []int{1, MaxReported, MaxReported + 1, 500} {
		c := newCluster(t, model.NewNAD("net", "macvlan"), model.NewPod("web", "", "net1 net 10.0.0.1"))
		for i := range n {
			upsert(c, model.NewPolicy(fmt.Sprintf("p-%03d", i), "net", `{ingress: []}`))
		}
		id, _ := c.LocalPod(model.KeyOf("web"))
		c.SetSandbox(id.UID, Sandbox{ID: "s1"})
		c.Plan(id)
		r, ok := c.ReportOf(id, "drop ingress-net1")
		if !ok || len(r.Policies) != min(n, MaxReported) || len(r.Policies)+r.More != n || r.Policies[0].Name != "p-000" {
			t.Errorf("%d policies: %v, %d more, %t", n, r.Policies, r.More, ok)
		}
	}
}
