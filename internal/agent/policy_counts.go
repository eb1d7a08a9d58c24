package agent

import (
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// countsInterval is the shortest time between two readings of the counts of policies. They are read when the reconciler asks a table
// for changes, which is every five seconds for a table that no other process can change: with a longer interval, every second time.
const countsInterval = 4 * time.Second

// policyMetrics are the packets and bytes of each policy, with the flag --policy-counters.
type policyMetrics struct{ liveSeries }

// newPolicyMetrics registers the metrics. They stay empty without --policy-counters.
func newPolicyMetrics(m *metrics) *policyMetrics {
	labels := []string{"namespace", "policy", "direction", "verdict"}
	return &policyMetrics{newLiveSeries("policy",
		m.counter("policy_packets_total", "With --policy-counters: packets that the rules of a policy allowed "+
			"(with --established=keep, the first packet of each connection), and packets that were dropped on an interface, "+
			"or would have been without audit mode (audited), counted for each policy that isolates the interface.", labels...),
		m.counter("policy_bytes_total", "The same as multi_networkpolicy_policy_packets_total, in bytes.", labels...),
	)}
}

// counted is the last reading of the counters of a table: the values that the metrics include already.
// The zero value has read nothing.
type counted struct {
	at    time.Time
	rules map[ruleHandle]engine.RuleCount
}

// ruleHandle identifies a rule in a network namespace while its table exists. A rule that is deleted and added again has a new handle, so
// its count starts at 0.
type ruleHandle struct {
	family expr.TableFamily
	handle uint64
}

// add adds the difference between two readings to the metrics, and returns the new reading. The packets that a rule
// counted between its last reading and its removal are lost.
func (p *policyMetrics) add(last counted, now []engine.RuleCount) counted {
	next := counted{time.Now(), map[ruleHandle]engine.RuleCount{}}
	isolating := isolatingPolicies(now)
	for _, c := range now {
		if !c.HasCounter {
			continue
		}
		packets, bytes := next.since(last, c)
		switch name, _ := engine.ParseChain(c.Chain); name.Kind {
		case engine.KindPolicy:
			policy, _, _ := strings.Cut(c.Comment, " ") // "shop/web ingress[0]"
			p.count(keyOf(policy), []string{name.Direction.String(), "allowed"}, packets, bytes)
		case engine.KindInterface:
			for _, policy := range isolating[isolatedInterface{c.Family, name.Direction, name.ID}] {
				p.count(keyOf(policy), []string{name.Direction.String(), lastVerdict(c)}, packets, bytes)
			}
		}
	}
	return next
}

// since notes the count of a rule, and returns the packets and bytes since the last reading.
func (n counted) since(last counted, c engine.RuleCount) (packets, bytes float64) {
	rule := ruleHandle{c.Family, c.Handle}
	n.rules[rule] = c
	before := last.rules[rule]
	if c.Packets < before.Packets || c.Bytes < before.Bytes {
		return float64(c.Packets), float64(c.Bytes) // another process has reset the counter
	}
	return float64(c.Packets - before.Packets), float64(c.Bytes - before.Bytes)
}

// lastVerdict returns the verdict of the last rule of an interface's chain, as a value of the label verdict.
func lastVerdict(c engine.RuleCount) string {
	if c.Accepts {
		return "audited"
	}
	return "dropped"
}

// isolatedInterface is a direction of an interface in a table. The interface is spelled as in names of chains.
type isolatedInterface struct {
	family    expr.TableFamily
	direction engine.Direction
	iface     string
}

// isolatingPolicies returns the policies that isolate each interface: the rules that jump to their chains have their names.
// A policy is named as in comments: "shop/web".
func isolatingPolicies(rules []engine.RuleCount) map[isolatedInterface][]string {
	policies := map[isolatedInterface][]string{}
	for _, r := range rules {
		name, _ := engine.ParseChain(r.Chain)
		if r.Comment == "" || name.Replies || name.Kind != engine.KindInterface && name.Kind != engine.KindPorts {
			continue
		}
		at := isolatedInterface{r.Family, name.Direction, name.ID}
		policies[at] = append(policies[at], r.Comment)
	}
	return policies
}
