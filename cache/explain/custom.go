package explain

import (
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/custom"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// CustomRuleExplanation is the effect of a custom rule on the packet.
// Rules are listed up to the first rule that decides.
type CustomRuleExplanation struct {
	Rule string `json:"rule"` // as it could be in a file
	// Verdict is "accept", "drop", "reject" or "return"; empty: the next rule decides.
	Verdict string `json:"verdict,omitempty"`
	Unsure  bool   `json:"unsure,omitempty"` // the verdict also depends on a limit, or on a field that the query lacks
}

// explainCustom runs the packet through the custom rules of its family and direction, up to the rule that decides. The
// last returned rule decides if its verdict is neither empty nor unsure.
// It returns nil if the agent has no such rules. An error is of a statement that cannot be evaluated.
func (e *explainer) explainCustom(iface string) ([]CustomRuleExplanation, error) {
	q := e.query
	rules := e.settings.Common(q.Direction).Custom(sets.FamilyOf(q.Remote))
	if len(rules.Rules) == 0 {
		return nil, nil
	}
	// The names of sets mean nothing to the author of a file, so the lists are written in their place.
	inline, packet := listsInline(rules.Sets), q.packetOn(e.pod, iface)
	var out []CustomRuleExplanation
	for _, r := range rules.Rules {
		o, err := expr.Evaluate(r.Statements, packet, rules.Lookup)
		if err != nil {
			return nil, err
		}
		out = append(out, CustomRuleExplanation{
			Rule: inline.Replace(engine.Rule{Statements: r.Statements}.Text()), Verdict: o.Verdict, Unsure: o.Unsure,
		})
		// The rules behind it are never reached. An unsure rule may let the packet go on.
		if o.Verdict != "" && !o.Unsure {
			break
		}
	}
	return out, nil
}

// packetOn returns the query's packet on an interface, with the pod's own address if the interface has a single address.
// State new: the query is about the first packet of a connection.
// A field that the query does not have stays zero, and a rule that reads it is unsure.
func (q Query) packetOn(p *cache.PodView, iface string) expr.Packet {
	packet := expr.Packet{
		Family: sets.FamilyOf(q.Remote), Source: q.Remote, Input: iface,
		Protocol: q.Protocol, DestinationPort: q.Port, ICMPType: q.ICMPType, State: expr.StateNew,
	}
	if own := q.ownAddrs(p, iface); len(own) == 1 {
		packet.Destination = own[0]
	}
	if q.Direction == engine.Egress {
		packet.Source, packet.Destination = packet.Destination, packet.Source
		packet.Input, packet.Output = "", iface
	}
	return packet
}

// listsInline writes lists in the place of the names of their sets.
// The names are those that the package custom gave the sets of a file.
func listsInline(list []custom.Set) *strings.Replacer {
	var pairs []string
	for _, s := range list {
		pairs = append(pairs, "@"+s.Name, customSetText(s))
	}
	return strings.NewReplacer(pairs...)
}

// customSetText returns the elements of a set as a list in braces.
// An element is an address range, or a number in the form of its type, such as a port or an ICMP type.
func customSetText(s custom.Set) string {
	var texts []string
	if s.Family != 0 {
		for r := range s.Addrs.Ranges(s.Family) {
			texts = append(texts, r.String())
		}
	} else {
		for r := range s.Numbers.Ranges() {
			texts = append(texts, s.Type.ElementText(r))
		}
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}
