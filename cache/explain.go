package cache

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Direction is the way that packets go, seen from the pod.
type Direction = direction

// The directions.
const (
	Ingress = ingress
	Egress  = egress
)

// Query is the first packet of a connection.
type Query struct {
	Pod       Key
	Interface string // empty: each that is isolated in the direction, or all of them if none is
	Direction Direction
	Remote    netip.Addr
	Local     netip.Addr // the pod's own address; the zero value: any that it has on the interface
	Protocol  uint8
	Port      uint16 // where it goes to; of TCP, UDP and SCTP
	ICMPType  uint8  // of ICMP and ICMPv6
}

// Why there is nothing to say of a pod or an interface.
var (
	ErrNoPod       = errors.New("there is no such pod with networks that policies could be about")
	ErrNoStatus    = errors.New("the pod's network status cannot be read, so what is enforced stays as it is")
	ErrNoInterface = errors.New("the pod has no such interface")
)

// Explanation says what happens to a packet, and why. Replies pass as part of their connection, whatever it says.
type Explanation struct {
	Pod        string                 `json:"pod"`
	Direction  string                 `json:"direction"`
	Remote     string                 `json:"remote"`
	RemotePods []string               `json:"remotePods,omitempty"` // who has the address
	Packet     string                 `json:"packet"`               // "80/tcp", "icmpv6 type 128"
	Interfaces []InterfaceExplanation `json:"interfaces"`
}

// Verdict is what happens to a packet.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "allowed"
	Denied  Verdict = "denied"
)

// InterfaceExplanation is the verdict on one interface.
type InterfaceExplanation struct {
	Interface string   `json:"interface"`
	Networks  []string `json:"networks"`
	Isolated  bool     `json:"isolated"` // in the packet's direction
	Verdict   Verdict  `json:"verdict"`
	DecidedBy string   `json:"decidedBy"` // "shop/web-policy ingress[0]", or in words what else it is
	Reason    string   `json:"reason"`

	// CustomRules are those that the packet meets before any policy. One that is unsure may decide before what is said
	// here does.
	CustomRules []CustomRuleExplanation `json:"customRules,omitempty"`
	Policies    []PolicyExplanation     `json:"policies"` // all of the pod's namespace; those of others never select it
}

// PolicyExplanation is what one policy does about the packet.
type PolicyExplanation struct {
	Policy   string            `json:"policy"`
	Isolates bool              `json:"isolates"`           // the interface, in the packet's direction
	Reason   string            `json:"reason,omitempty"`   // why it does not
	Rules    []RuleExplanation `json:"rules,omitempty"`    // of the direction, if it does
	Problems []string          `json:"problems,omitempty"` // fields that allow nothing because they are invalid
}

// RuleExplanation is what one rule does about the packet.
type RuleExplanation struct {
	Rule   string `json:"rule"` // "ingress[0]"
	Allows bool   `json:"allows"`
	Reason string `json:"reason"`
}

// Explain says what the tables in force, once they are, do to a packet. It takes pods of any node, and looks at the same
// compiled policies and the same members of groups that Rulesets are made of.
func (c *Cache) Explain(q Query) (Explanation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q.Remote = q.Remote.Unmap().WithZone("")
	out := Explanation{
		Pod: q.Pod.String(), Direction: q.Direction.String(), Remote: q.Remote.String(), Packet: q.packet(),
		RemotePods: c.whoHas(q.Remote),
	}
	err := c.withTarget(q.Pod, func(t *target) error {
		interfaces, err := c.interfacesFor(t, q)
		if err != nil {
			return err
		}
		for _, iface := range interfaces {
			e, err := c.explainInterface(t, q, iface)
			if err != nil {
				return err
			}
			out.Interfaces = append(out.Interfaces, e)
		}
		return nil
	})
	return out, err
}

// Preview is the Ruleset that a pod of any node would get there.
func (c *Cache) Preview(key Key) (engine.Ruleset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rs engine.Ruleset
	err := c.withTarget(key, func(t *target) error {
		rs = t.ruleset
		return nil
	})
	return rs, err
}

// withTarget calls f with the target of a pod, whose ruleset is made. A pod of another node is one as long as f runs.
func (c *Cache) withTarget(key Key, f func(*target) error) error {
	p := c.pods[key]
	if p == nil {
		return fmt.Errorf("pod %s: %w", key, ErrNoPod)
	}
	if !p.known {
		return fmt.Errorf("pod %s: %w", key, ErrNoStatus)
	}
	t := p.target
	if t == nil {
		t = &target{pod: p, plan: &plan{}, stale: true, selected: c.policiesOf(p)}
		defer func() { c.releasePlan(t, t.plan, &plan{}) }()
	}
	c.rulesetOf(t)
	return f(t)
}

// interfacesFor returns the names of the interfaces that a query is about.
func (c *Cache) interfacesFor(t *target, q Query) ([]string, error) {
	all := t.pod.interfaces()
	if q.Interface != "" {
		if !slices.Contains(all, q.Interface) {
			return nil, fmt.Errorf("interface %s of pod %s: %w: it has %s", q.Interface, q.Pod, ErrNoInterface,
				listOr(all, "none"))
		}
		return []string{q.Interface}, nil
	}
	var isolated []string
	for _, g := range c.guards(t, q.Direction) {
		isolated = append(isolated, g.iface)
	}
	if len(isolated) > 0 {
		return isolated, nil
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("pod %s: %w", q.Pod, ErrNoPod)
	}
	return all, nil
}

// interfaces returns the names of all interfaces that the pod's network status tells of, sorted.
func (p *pod) interfaces() []string {
	var names []string
	for _, a := range p.attachments {
		names = append(names, a.iface)
	}
	return slices.Compact(names)
}

// explainInterface goes the way of the packet: what is common to all pods, then the policies, then the drop.
func (c *Cache) explainInterface(t *target, q Query, iface string) (InterfaceExplanation, error) {
	out := InterfaceExplanation{Interface: iface, Networks: []string{}, Policies: []PolicyExplanation{}, Verdict: Allowed}
	var g guard
	for _, isolated := range c.guards(t, q.Direction) {
		if isolated.iface == iface {
			g, out.Isolated = isolated, true
		}
	}
	for _, a := range t.pod.attachments {
		if a.iface == iface {
			out.Networks = append(out.Networks, a.network.key.String())
		}
	}
	for _, p := range c.policiesIn(q.Pod.Namespace) {
		out.Policies = append(out.Policies, c.explainPolicy(t.pod, q, iface, p, slices.Contains(g.policies, p)))
	}
	if !out.Isolated {
		out.DecidedBy = "no policy"
		out.Reason = fmt.Sprintf("no policy isolates %s for %s, so all passes", iface, q.Direction)
		return out, nil
	}
	if by, reason := c.explainCommon(t.pod, q, iface); by != "" {
		out.DecidedBy, out.Reason = by, reason
		return out, nil
	}
	var err error
	out.CustomRules, err = c.explainCustom(t.pod, q, iface)
	out.decide(q)
	return out, err
}

// decide takes the first rule that allows the packet, as the kernel does.
func (e *InterfaceExplanation) decide(q Query) {
	if n := len(e.CustomRules); n > 0 {
		switch last := e.CustomRules[n-1]; {
		case last.Unsure:
		case last.Verdict == "drop", last.Verdict == "reject":
			e.Verdict, e.DecidedBy, e.Reason = Denied, "a custom rule", last.Rule
			return
		case last.Verdict == "accept":
			e.DecidedBy, e.Reason = "a custom rule", last.Rule
			return
		}
	}
	for _, p := range e.Policies {
		for _, r := range p.Rules {
			if r.Allows {
				e.DecidedBy, e.Reason = p.Policy+" "+r.Rule, r.Reason
				return
			}
		}
	}
	e.Verdict, e.DecidedBy = Denied, "no rule"
	e.Reason = fmt.Sprintf("policies isolate %s for %s, and no rule of theirs allows it", e.Interface, q.Direction)
}

// policiesIn returns the policies of a namespace, sorted.
func (c *Cache) policiesIn(namespace string) []*policy {
	var all []*policy
	for _, p := range c.policies {
		if p.key.Namespace == namespace {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, comparePolicies)
	return all
}

// whoHas returns the pods that have an address, each with where.
func (c *Cache) whoHas(addr netip.Addr) []string {
	var found []string
	for _, p := range c.pods {
		for _, a := range p.attachments {
			if slices.Contains(a.addrs, addr) {
				found = append(found, fmt.Sprintf("%s (%s on %s)", p.key, a.iface, a.network.key))
			}
		}
	}
	slices.Sort(found)
	return found
}

// packet is the query's packet in words.
func (q Query) packet() string {
	switch q.Protocol {
	case protoTCP, protoUDP, protoSCTP:
		return fmt.Sprintf("%d/%s", q.Port, protocolName(q.Protocol))
	case protoICMP:
		return fmt.Sprintf("icmp type %d", q.ICMPType)
	case protoICMPv6:
		return fmt.Sprintf("icmpv6 type %d", q.ICMPType)
	}
	return fmt.Sprintf("protocol %d", q.Protocol)
}

func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}
