package cache

import (
	"fmt"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// rule is one rule of a policy: it allows its peers its ports.
type rule struct {
	index    int // in its list; also in the comment
	comment  string
	everyone bool
	peers    *groupSpec // unless everyone; nil: nobody without a named port
	anyPort  bool
	ports    sets.Ports // unless anyPort
	names    []portName // unless anyPort
	named    *groupSpec // egress with names: the peers' ports of these names; nil: nobody can have one
}

// section is what a policy says for one direction. A policy that does not isolate a direction has none for it.
type section struct {
	direction direction
	policy    string // namespace/name
	chainName string
	rules     []rule
	byName    bool   // what its rules are depends on the named ports of the pod they protect
	text      string // canonical: all that its chains are made of

	chains map[string]*policyChain // in use, by what the named ports resolve to
}

// sectionSource is what both kinds of rules in the API have.
type sectionSource struct {
	ports []mnpv1.MultiNetworkPolicyPort
	peers []mnpv1.MultiNetworkPolicyPeer
}

func sourcesOf(spec *mnpv1.MultiNetworkPolicySpec, d direction) []sectionSource {
	var out []sectionSource
	if d == ingress {
		for _, r := range spec.Ingress {
			out = append(out, sectionSource{r.Ports, r.From})
		}
		return out
	}
	for _, r := range spec.Egress {
		out = append(out, sectionSource{r.Ports, r.To})
	}
	return out
}

// compileSection reads the rules of one direction. A rule with peers of which none is good is left out.
func compileSection(key Key, networks []Key, d direction, sources []sectionSource, ps *problems) *section {
	s := &section{
		direction: d,
		policy:    key.String(),
		chainName: d.String() + "-policy-" + newCanon("policy").text(key.Namespace).text(key.Name).id(),
		chains:    map[string]*policyChain{},
	}
	text := newCanon("section")
	for i, src := range sources {
		field := fmt.Sprintf("spec.%s[%d]", d, i)
		r, ok := compileRule(key.Namespace, networks, d, field, src, ps)
		if !ok {
			continue
		}
		r.index = i
		r.comment = comment(fmt.Sprintf("%s %s[%d]", s.policy, d, i))
		s.byName = s.byName || d == ingress && len(r.names) > 0
		s.rules = append(s.rules, r)
		r.encode(text)
	}
	s.text = string(text.buf)
	return s
}

func compileRule(namespace string, networks []Key, d direction, field string, src sectionSource, ps *problems) (rule, bool) {
	r := rule{everyone: len(src.peers) == 0, anyPort: len(src.ports) == 0}
	peers, blocks := compilePeers(namespace, field+"."+d.peerField(), src.peers, ps)
	r.ports, r.names = compilePorts(field+".ports", src.ports, ps)
	if r.everyone {
		// Everyone who could have a named port: each pod on the policy's networks.
		all := everything()
		peers = []peer{{scope: scopeKey{selector: all.text}, namespaces: all, pods: all}}
	} else if len(peers) > 0 || len(blocks) > 0 {
		r.peers = newGroupSpec(networks, peers, blocks, nil)
	}
	if d == egress && len(r.names) > 0 && len(peers) > 0 {
		r.named = newGroupSpec(networks, peers, nil, r.names)
	}
	return r, r.everyone || r.peers != nil
}

// encode writes all that the rule's part of a chain is made of.
func (r rule) encode(to *canon) {
	to.text(r.comment).count(r.index)
	for _, g := range []*groupSpec{r.peers, r.named} {
		if g == nil {
			to.text("")
		} else {
			to.text(g.name)
		}
	}
	to.text(fmt.Sprint(r.everyone, r.anyPort)).text(portsName(r.ports)).count(len(r.names))
	for _, n := range r.names {
		to.text(protocolName(n.proto)).text(n.name)
	}
}

// portsFor returns the ports of the rule by number, with the named ports of the pod that it protects.
func (r rule) portsFor(d direction, pod []namedPort) sets.Ports {
	if d == egress || len(r.names) == 0 {
		return r.ports
	}
	var resolved []sets.PortRange
	for _, n := range r.names {
		for _, p := range pod {
			if p.portName == n {
				resolved = append(resolved, sets.PortRange{Proto: n.proto, From: p.number, To: p.number})
			}
		}
	}
	return r.ports.Union(sets.NewPorts(resolved...))
}
