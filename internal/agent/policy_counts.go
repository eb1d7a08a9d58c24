package agent

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// countsInterval is how old the packets of policies can be: they are read when a table is looked at anyway.
const countsInterval = 5 * time.Second

// policyMetrics are the packets and bytes of each policy, with the flag --policy-counters.
type policyMetrics struct {
	packets, bytes *prometheus.CounterVec
}

func newPolicyMetrics(m *metrics) *policyMetrics {
	labels := []string{"namespace", "policy", "direction", "verdict"}
	return &policyMetrics{
		packets: m.counter("policy_packets_total", "With --policy-counters: packets that a policy's rules allowed, the first ones of connections, and "+
			"those dropped on the interfaces that it isolates, counted for each policy that does.", labels...),
		bytes: m.counter("policy_bytes_total", "The same in bytes.", labels...),
	}
}

// counted is what the counters of one table said the last time.
type counted struct {
	at    time.Time
	rules map[ruleHandle]engine.RuleCount
}

// ruleHandle identifies a rule in one network namespace.
type ruleHandle struct {
	family expr.TableFamily
	handle uint64
}

// tableChain identifies a chain in one network namespace.
type tableChain struct {
	family expr.TableFamily
	chain  string
}

// add adds what was counted since. A rule that is gone takes with it what it counted after the last time.
func (p *policyMetrics) add(last counted, now []engine.RuleCount) counted {
	next := counted{time.Now(), map[ruleHandle]engine.RuleCount{}}
	isolating := map[tableChain][]string{} // policies, by the chain that has jumps to theirs
	for _, c := range now {
		rule, chain := ruleHandle{c.Family, c.Handle}, tableChain{c.Family, c.Chain}
		if c.Comment != "" && kindOf(c.Chain) == engine.KindInterface {
			isolating[chain] = append(isolating[chain], c.Comment)
		}
		if !c.HasCounter {
			continue
		}
		next.rules[rule] = c
		before := last.rules[rule]
		packets, bytes := float64(c.Packets-before.Packets), float64(c.Bytes-before.Bytes)
		if c.Packets < before.Packets || c.Bytes < before.Bytes {
			packets, bytes = float64(c.Packets), float64(c.Bytes) // somebody has reset it
		}
		direction, _, _ := strings.Cut(c.Chain, "-")
		switch kindOf(c.Chain) {
		case engine.KindPolicy:
			policy, _, _ := strings.Cut(c.Comment, " ") // "shop/web ingress[0]"
			p.count(policy, direction, "allowed", packets, bytes)
		case engine.KindInterface:
			for _, policy := range isolating[chain] { // the drop is the last rule
				p.count(policy, direction, "dropped", packets, bytes)
			}
		}
	}
	return next
}

func (p *policyMetrics) count(policy, direction, verdict string, packets, bytes float64) {
	namespace, name, _ := strings.Cut(policy, "/")
	p.packets.WithLabelValues(namespace, name, direction, verdict).Add(packets)
	p.bytes.WithLabelValues(namespace, name, direction, verdict).Add(bytes)
}

// forget removes the series of a policy that is gone, and again a while later: a table that still has its rules may have
// been counted meanwhile.
func (p *policyMetrics) forget(key cache.Key) {
	labels := prometheus.Labels{"namespace": key.Namespace, "policy": key.Name}
	remove := func() {
		p.packets.DeletePartialMatch(labels)
		p.bytes.DeletePartialMatch(labels)
	}
	remove()
	time.AfterFunc(3*countsInterval, remove)
}

func kindOf(chain string) engine.ChainKind {
	name, _ := engine.ParseChain(chain)
	return name.Kind
}
