package policy

import (
	"encoding/json"
	"fmt"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Section holds the rules of a policy for a direction that the policy isolates.
// It is immutable once compiled.
type Section struct {
	Direction engine.Direction
	Policy    string // namespace/name
	ChainName string
	Rules     []Rule
	ByName    bool   // the chains depend on the named ports of the isolated pod
	Digest    Digest // covers everything that affects the content of the chains

	SetCount  int // maximum number of sets that a chain refers to, apart from the second sets of large groups
	RuleCount int // maximum number of rules in a chain, apart from the rules for these sets
}

// Rule allows packets between the isolated pod and its peers on its ports.
// A packet matches if it has both a peer and a port.
type Rule struct {
	Index    int        // place in the list of the policy, from 0
	Comment  string     // policy and rule, as nft prints it: "shop/web ingress[0]"
	Everyone bool       // any address is a peer
	Peers    *Group     // the peers, unless Everyone; nil: the rule allows nobody
	AnyPort  bool       // all ports and protocols
	Ports    sets.Ports // the ports with numbers, unless AnyPort
	Names    []PortName // the ports with names, unless AnyPort; sorted
	Named    *Group     // egress with Names: the peers with their ports of these names; nil: no peer can have named ports
}

// AllowsNobody reports whether no packet can match the rule, since all of its peers are invalid or exceed a limit.
func (r *Rule) AllowsNobody() bool { return !r.Everyone && r.Peers == nil && r.Named == nil }

// compileSection reads the rules of a direction.
func compileSection(key Key, d engine.Direction, raw json.RawMessage, groups *groupFactory, u *usage, ps *Problems) *Section {
	field := "spec." + d.String()
	s := newSection(key, d)
	list, ok := decodeList(raw)
	if !ok {
		ps.Add(field, "is not a list, so it allows nothing")
	}
	e := newEncoder("section")
	for i, raw := range list {
		at := item(field, i)
		if !u.takeRule(at, ps) {
			break
		}
		// An invalid rule keeps its place, so that the index in comments and explanations is right.
		r := compileRule(key.Namespace, d, at, raw, groups, u, ps)
		r.Index = i
		r.Comment = comment(fmt.Sprintf("%s %s", s.Policy, item(d.String(), i)))
		s.ByName = s.ByName || d == engine.Ingress && len(r.Names) > 0
		s.Rules = append(s.Rules, r)
		r.encode(e)
	}
	s.Digest = e.digest()
	s.count()
	return s
}

// count sets SetCount and RuleCount. Different rules may have equal sets of ports, which it counts twice, so both
// numbers are upper bounds.
// They bound the size of a table before it is planned.
func (s *Section) count() {
	groups := map[Digest]bool{}
	for i := range s.Rules {
		r := &s.Rules[i]
		for _, g := range []*Group{r.Peers, r.Named} {
			if g == nil {
				continue
			}
			s.RuleCount += len(sets.Families)
			if !groups[g.Digest] {
				groups[g.Digest] = true
				s.SetCount += len(sets.Families)
			}
		}
		if r.Everyone {
			s.RuleCount++
		}
		if !r.AnyPort {
			s.SetCount++
		}
	}
}

// newSection returns a section without rules. The name of its chain is a digest of the policy's name, so that it stays the same
// when the policy changes.
func newSection(key Key, d engine.Direction) *Section {
	id := newEncoder("policy").text(key.Namespace).text(key.Name).digest().ID()
	return &Section{Direction: d, Policy: key.String(), ChainName: engine.PolicyChain(d, id)}
}

// JumpComment returns the comment of a rule that jumps to the chain of the section.
func (s *Section) JumpComment() string { return comment(s.Policy) }

// empty returns the section without rules: it isolates the direction and allows nothing.
func (s *Section) empty() *Section {
	return &Section{Direction: s.Direction, Policy: s.Policy, ChainName: s.ChainName, Digest: newEncoder("section").digest()}
}

// Equal reports whether two sections have the same chains. Either may be nil.
func (s *Section) Equal(t *Section) bool {
	if s == nil || t == nil {
		return s == t
	}
	return s.Digest == t.Digest && s.ChainName == t.ChainName
}

// compileRule reads a rule. An absent or empty list of peers allows everyone, and an absent or empty list of ports allows every
// port. But a list that has only invalid items allows nobody.
func compileRule(namespace string, d engine.Direction, field string, raw json.RawMessage, groups *groupFactory, u *usage, ps *Problems) Rule {
	var in rawRule
	if err := decode(raw, &in); err != nil || isNull(raw) {
		ps.Add(field, "cannot be decoded, so the rule allows nobody: %s", quoteJSON(raw))
		return Rule{}
	}
	peerField := field + "." + peerFieldName(d)
	peerList, validPeers := decodeList(in.peers(d))
	portList, validPorts := decodeList(in.Ports)
	if !validPeers {
		ps.Add(peerField, "is not a list, so the rule allows nobody")
		return Rule{}
	}
	if !validPorts {
		ps.Add(field+".ports", "is not a list, so the rule allows nobody")
		return Rule{}
	}
	r := Rule{Everyone: len(peerList) == 0, AnyPort: len(portList) == 0}
	peers, blocks := compilePeers(namespace, peerField, peerList, u, ps)
	r.Ports, r.Names = compilePorts(field+".ports", portList, u, ps)
	if r.Everyone {
		// For named ports: only pods have named ports, so the peers are all pods on the policy's networks.
		peers = []Peer{everyPod()}
	} else if len(peers) > 0 || len(blocks) > 0 {
		r.Peers = groups.addresses(peers, blocks)
	}
	if d == engine.Egress && len(r.Names) > 0 && len(peers) > 0 {
		r.Named = groups.endpoints(peers, r.Names)
	}
	return r
}

// peerFieldName returns the name of the list of peers in a rule.
func peerFieldName(d engine.Direction) string {
	if d == engine.Ingress {
		return "from"
	}
	return "to"
}

// encode hashes everything in the rule that affects the content of a chain. Sections with equal digests need no new chain.
func (r *Rule) encode(e encoder) {
	e.text(r.Comment).count(r.Index)
	for _, g := range []*Group{r.Peers, r.Named} {
		if g == nil {
			e.text("")
		} else {
			e.text(string(g.Digest[:]))
		}
	}
	e.text(fmt.Sprint(r.Everyone, r.AnyPort))
	encodePorts(e, r.Ports).count(len(r.Names))
	for _, n := range r.Names {
		e.text(ProtocolName(n.Proto)).text(n.Name)
	}
}

// PortsFor returns the ports of the rule as numbers. For ingress, it resolves names with the named ports of the isolated pod,
// which must be sorted. For egress, names are resolved by the group Named, since they are ports of the peers.
// A name that the pod does not have adds nothing.
func (r *Rule) PortsFor(d engine.Direction, pod []NamedPort) sets.Ports {
	if d == engine.Egress || len(r.Names) == 0 {
		return r.Ports
	}
	var resolved []sets.PortRange
	for _, name := range r.Names {
		for _, p := range numbersOf(name, pod) {
			resolved = append(resolved, sets.PortRange{Proto: p.Proto, From: p.Number, To: p.Number})
		}
	}
	return r.Ports.Union(sets.NewPorts(resolved...))
}
