package explain

import (
	"fmt"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// An address that a policy would allow, of a pod that is nobody's peer: the explanation names the limit.
func TestExplainAddressLimit(t *testing.T) {
	o := testOptions()
	o.Limits = policy.DefaultLimits()
	o.Limits.NamespaceAddresses = 2
	c := cache.New(o)
	upsert(c, model.NewNAD("net", "macvlan"))
	upsert(c, model.NewPolicy("p", "net", `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}`))
	for i, name := range []string{"web", "old", "young"} {
		upsert(c, model.NewPod(name, "app="+name, fmt.Sprintf("net1 net 10.0.0.%d", i+1)))
	}
	settle(c)
	for remote, allowed := range map[string]bool{"10.0.0.2": true, "10.0.0.3": false} { // none has a time: by name
		e, err := Explain(c, newQuery("web ingress net1 "+remote+" tcp 80"))
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%+v", e)
		if (e.Interfaces[0].Verdict == Allowed) != allowed || strings.Contains(text, "exceeds the limit namespace-addresses=2") == allowed {
			t.Errorf("%s: %s", remote, text)
		}
	}
}
