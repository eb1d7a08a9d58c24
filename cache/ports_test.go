package cache

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// TestSharedPorts: policies with the same list of ports share the lookup of the port, as do the rules of a policy. A rule with
// another list in its policy looks up its own ports before its peers.
func TestSharedPorts(t *testing.T) {
	rule := func(app string, ports ...int) string {
		var list []string
		for _, p := range ports {
			list = append(list, fmt.Sprintf("{port: %d}", p))
		}
		return fmt.Sprintf("{from: [{podSelector: {matchLabels: {app: %s}}}], ports: [%s]}", app, strings.Join(list, ", "))
	}
	spec := func(rules ...string) string { return "{ingress: [" + strings.Join(rules, ", ") + "]}" }
	for name, tc := range map[string]struct {
		policies []string // specs of the policies a, b, …
		want     string
	}{
		"all rules of a policy": {[]string{spec(rule("x", 80), rule("y", 80))}, `
ingress-net1: jump common-ingress | PORTS-80 jump POLICY-a | jump self-ingress | counter drop
POLICY-a: PEERS-x accept | PEERS-y accept`},
		"some rules of a policy": {[]string{spec(rule("x", 80), rule("y", 80), rule("z", 443))}, `
ingress-net1: jump common-ingress | jump POLICY-a | jump self-ingress | counter drop
POLICY-a: PEERS-x PORTS-80 accept | PEERS-y PORTS-80 accept | PORTS-443 PEERS-z accept`},
		"two of three policies": {[]string{spec(rule("x", 80)), spec(rule("y", 443)), spec(rule("z", 80))}, `
ingress-net1: jump common-ingress | PORTS-80 jump GROUP-80-net1 | PORTS-443 jump POLICY-b | jump self-ingress | counter drop
POLICY-a: PEERS-x accept
POLICY-b: PEERS-y accept
POLICY-c: PEERS-z accept
GROUP-80-net1: jump POLICY-a | jump POLICY-c`},
		"policies without ports": {[]string{spec("{}"), spec("{}")}, `
ingress-net1: jump common-ingress | jump POLICY-a | jump POLICY-b | jump self-ingress | counter drop
POLICY-a: accept
POLICY-b: accept`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, model.WebPod())
			var names []string
			for i, spec := range tc.policies {
				key := string(rune('a' + i))
				p := model.NewPolicy(key, "net-a", spec)
				upsert(c, p)
				section := compile(p).Sections[engine.Ingress]
				names = append(names, section.ChainName, "POLICY-"+key)
			}
			for _, port := range []int{80, 443} {
				p := compile(model.NewPolicy("p", "net-a", spec(rule("x", port)))).Sections[engine.Ingress].Build(nil, policy.BuildOptions{})
				names = append(names, "th dport . meta l4proto @"+p.Ports[0].Name(), fmt.Sprint("PORTS-", port),
					"ingress-"+p.Ports[0].Name(), fmt.Sprint("GROUP-", port))
			}
			for _, app := range []string{"x", "y", "z"} {
				group := compile(model.NewPolicy("p", "net-a", spec(rule(app, 80)))).Sections[engine.Ingress].Rules[0].Peers
				names = append(names, "ip saddr @"+group.Name()+"-v4", "PEERS-"+app)
			}
			readable := strings.NewReplacer(names...)
			var got strings.Builder
			for _, chain := range ruleset(c, "web").Chains {
				if name, _ := engine.ParseChain(chain.Name); name.Kind != engine.KindInterface && name.Kind != engine.KindPorts && name.Kind != engine.KindPolicy {
					continue
				}
				var rules []string
				for _, r := range chain.Rules {
					var text []string
					for _, s := range r.Statements {
						text = append(text, s.Text)
					}
					if text := strings.Join(text, " "); !strings.Contains(text, "ip6 ") && !strings.HasPrefix(text, "ct ") {
						rules = append(rules, readable.Replace(text))
					}
				}
				fmt.Fprintf(&got, "\n%s: %s", readable.Replace(chain.Name), strings.Join(rules, " | "))
			}
			if diff := cmp.Diff(strings.Split(tc.want, "\n"), strings.Split(got.String(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
