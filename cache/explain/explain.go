package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Query is the first packet of a connection. The zero values of Interface and Local mean that they are not given.
// An example is a SYN to port 80 that reaches the pod Pod from Remote.
type Query struct {
	Pod       cache.Key
	Interface string // name of an interface; empty: every interface that is isolated in the direction, or all if none is
	Direction engine.Direction
	Remote    netip.Addr // the other end of the connection
	Local     netip.Addr // the pod's own address; the zero value: any address of the interface
	Protocol  uint8      // IP protocol number
	Port      uint16     // destination port; of TCP, UDP and SCTP
	ICMPType  uint8      // of ICMP and ICMPv6
}

// Errors of Explain and Preview for a pod or an interface without a verdict.
var (
	ErrNoPod       = errors.New("there is no such pod with networks that policies could be about")
	ErrNoStatus    = errors.New("the pod's network status cannot be read, so what is enforced stays as it is")
	ErrNoInterface = errors.New("the pod has no such interface")
)

// Explanation is the verdict on a packet, with the reasons. Replies pass as part of their connection, whatever the
// explanation says. The JSON form is the output of explain --output json.
type Explanation struct {
	Pod       string `json:"pod"`
	Direction string `json:"direction"`
	Remote    string `json:"remote"`
	// RemotePods are the pods that have the address Remote.
	RemotePods []string               `json:"remotePods,omitempty"`
	Packet     string                 `json:"packet"` // "80/tcp", "icmpv6 type 128"
	Interfaces []InterfaceExplanation `json:"interfaces"`
}

// Verdict says whether a packet passes.
// A verdict of an interface that no policy isolates is Allowed.
type Verdict string

// The verdicts. NotEnforced is the verdict on an interface whose packets the kernel hides from rules: policies isolate it, but
// the packet may pass or be dropped, whatever they allow.
const (
	Allowed     Verdict = "allowed"
	Denied      Verdict = "denied"
	NotEnforced Verdict = "not enforced"
)

// InterfaceExplanation is the verdict on an interface.
type InterfaceExplanation struct {
	Interface string   `json:"interface"`
	Networks  []string `json:"networks"`
	Isolated  bool     `json:"isolated"`          // in the packet's direction
	Audited   bool     `json:"audited,omitempty"` // the policies are in audit mode, and would deny the packet
	Verdict   Verdict  `json:"verdict"`
	DecidedBy string   `json:"decidedBy"` // "shop/web-policy ingress[0]", or another reason in words
	Reason    string   `json:"reason"`
	Bridge    string   `json:"bridge,omitempty"`  // how frames of a virtual machine in the pod are judged
	Caveats   []string `json:"caveats,omitempty"` // reasons why the packet or its replies may have another verdict

	// CustomRules are the custom rules that the packet meets before any policy. An unsure rule among them may decide
	// before the rule that DecidedBy names.
	CustomRules []CustomRuleExplanation `json:"customRules,omitempty"`
	Policies    []PolicyExplanation     `json:"policies"` // all policies of the pod's namespace; policies of other namespaces never select the pod
}

// PolicyExplanation is the effect of a policy on the packet.
type PolicyExplanation struct {
	Policy   string            `json:"policy"`
	Audited  bool              `json:"audited,omitempty"`  // the policy is in audit mode: it isolates nothing
	Isolates bool              `json:"isolates"`           // whether it isolates the interface in the packet's direction
	Reason   string            `json:"reason,omitempty"`   // why it does not isolate the interface
	Rules    []RuleExplanation `json:"rules,omitempty"`    // rules of the direction, if it isolates the interface
	Problems []string          `json:"problems,omitempty"` // fields that allow nothing because they are invalid
}

// RuleExplanation is the effect of a rule on the packet.
type RuleExplanation struct {
	Rule   string `json:"rule"` // "ingress[0]"
	Allows bool   `json:"allows"`
	Reason string `json:"reason"`
}

// Explain returns the verdict on a packet by the table that the pod should have, whether or not this table is in force.
// The pod must be local to the cache. The error wraps ErrNoPod, ErrNoStatus or ErrNoInterface, or is an error of a
// custom rule.
func Explain(c *cache.Cache, q Query) (Explanation, error) {
	q.Remote = q.Remote.Unmap().WithZone("")
	out := Explanation{
		Pod: q.Pod.String(), Direction: q.Direction.String(), Remote: q.Remote.String(), Packet: q.packet(),
	}
	// The pods with the address help to see a mistake, such as a pod on another network.
	holders := holdersOf(c, q.Remote)
	for _, p := range holders {
		for _, a := range p.Has(q.Remote) {
			text := fmt.Sprintf("%s (%s on %s)", p.Key, a.Interface, a.Network)
			if p.Limit != "" {
				text += ", which is nobody's peer, as its namespace exceeds the limit " + p.Limit
			}
			out.RemotePods = append(out.RemotePods, text)
		}
	}
	slices.Sort(out.RemotePods)
	pod, err := viewOf(c, q.Pod)
	if err != nil {
		return out, err
	}
	interfaces, err := interfacesFor(pod, q)
	if err != nil {
		return out, err
	}
	e := explainer{cache: c, settings: c.Settings(), pod: pod, query: q, holders: holders}
	for _, iface := range interfaces {
		i, err := e.explainInterface(iface)
		if err != nil {
			return out, err
		}
		out.Interfaces = append(out.Interfaces, i)
	}
	return out, nil
}

// Preview returns the tables that a pod gets, without a table of family bridge that only drops. The pod must be local
// to the cache.
// It is the table that a user can read before the pod runs on any node.
func Preview(c *cache.Cache, key cache.Key) (engine.Tables, error) {
	pod, err := viewOf(c, key)
	if err != nil {
		return engine.Tables{}, err
	}
	tables := pod.Tables
	if !pod.HasBridge {
		tables[engine.Bridge] = engine.Ruleset{}
	}
	return tables, nil
}

// explainer answers a query.
// It lives as long as the query. Its cache may change meanwhile: each call of the cache takes the lock anew.
type explainer struct {
	cache    *cache.Cache
	settings *cache.Options
	pod      *cache.PodView
	query    Query
	holders  []cache.PeerView // pods with the remote address
}

// viewOf returns the view of a local pod whose interfaces are known.
// Both errors say that no verdict is known, not that the packet passes.
func viewOf(c *cache.Cache, key cache.Key) (*cache.PodView, error) {
	pod, ok := c.View(key)
	switch {
	case !ok:
		return nil, fmt.Errorf("pod %s: %w", key, ErrNoPod)
	case !pod.Known:
		return nil, fmt.Errorf("pod %s: %w", key, ErrNoStatus)
	}
	return &pod, nil
}

// interfacesFor returns the names of the interfaces that a query is about: the given interface, or all isolated
// interfaces, or all interfaces if none is isolated.
// An interface that the query names must exist, or a typing error would look like an open interface.
func interfacesFor(pod *cache.PodView, q Query) ([]string, error) {
	all := pod.Interfaces()
	if q.Interface != "" {
		if !slices.Contains(all, q.Interface) {
			return nil, fmt.Errorf("interface %s of pod %s: %w: it has %s", q.Interface, q.Pod, ErrNoInterface,
				listOr(all, "none"))
		}
		return []string{q.Interface}, nil
	}
	var isolated []string
	for _, i := range pod.Isolated[q.Direction] {
		isolated = append(isolated, i.Interface)
	}
	if len(isolated) > 0 {
		return isolated, nil
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("pod %s: %w", q.Pod, ErrNoPod)
	}
	return all, nil
}

// explainInterface follows the packet through the table: the rules that all pods share, the policies, the drop.
// The order is that of the table, as the first rule that decides ends the way of the packet.
func (e *explainer) explainInterface(iface string) (InterfaceExplanation, error) {
	out := InterfaceExplanation{Interface: iface, Networks: []string{}, Policies: []PolicyExplanation{}, Verdict: Allowed}
	if why := e.pod.LostReplies[iface]; why != "" {
		out.Caveats = append(out.Caveats, why)
	}
	var isolation cache.IsolationView
	// An interface is isolated in a direction at most once.
	for _, i := range e.pod.Isolated[e.query.Direction] {
		if i.Interface == iface {
			isolation, out.Isolated = i, true
		}
	}
	for _, a := range e.pod.Attachments {
		if a.Interface == iface {
			out.Networks = append(out.Networks, a.Network.String())
		}
	}
	// All policies of the namespace are explained, so that the answer tells why a policy has no effect.
	for _, p := range e.pod.Policies {
		out.Policies = append(out.Policies, e.explainPolicy(iface, p, isolation))
	}
	if !out.Isolated {
		out.DecidedBy = "no policy"
		out.Reason = fmt.Sprintf("no policy isolates %s for %s, so all passes", iface, e.query.Direction)
		out.Caveats = append(out.Caveats, e.enforcedElsewhere(iface)...)
		return out, nil
	}
	if isolation.Unenforceable != "" {
		out.Verdict, out.DecidedBy, out.Reason = NotEnforced, "no rule", "policies cannot be enforced on "+iface+": "+isolation.Unenforceable
		out.Caveats = nil // the reason has it
		return out, nil
	}
	// A kernel without support decides in the bridge, before any policy.
	if e.pod.HasBridge && !out.explainBridge(e.settings.Bridge) {
		return out, nil
	}
	if by, reason := e.explainCommon(iface); by != "" {
		out.DecidedBy, out.Reason = by, reason
		return out, nil
	}
	var err error
	out.CustomRules, err = e.explainCustom(iface)
	// The common chain ends with the custom rules.
	out.decide(e.query)
	if isolation.Audited && out.Verdict == Denied {
		out.pass()
	}
	// Only a denied packet can pass after all.
	if why := e.pod.Caveats[iface]; why != "" && out.Verdict == Denied {
		out.Caveats = append(out.Caveats, why)
	}
	return out, err
}

// enforcedElsewhere returns a caveat for each network of the interface whose policies another implementation enforces: it may deny the
// packet.
func (e *explainer) enforcedElsewhere(iface string) (caveats []string) {
	for _, a := range e.pod.Attachments {
		if a.Interface == iface && a.EnforcedBy != "" {
			caveats = append(caveats, fmt.Sprintf("%s enforces the policies for %s, so it may deny the packet", a.EnforcedBy, a.Network))
		}
	}
	return caveats
}

// inBridge is the explanation for a virtual machine. A command runs without knowledge of the node's kernel.
const inBridge = "the table of family bridge judges the frames of the virtual machine in the same way; if the kernel of the node cannot " +
	"do that, the frames are dropped, and the policies have an Event BridgeNotEnforced"

// explainBridge adds how the kernel judges frames in the bridge of the pod. It returns false if the kernel cannot
// enforce policies there, which decides.
func (e *InterfaceExplanation) explainBridge(support cache.BridgeSupport) bool {
	if support == cache.BridgeStateful {
		e.Bridge = inBridge
		return true
	}
	if support == cache.BridgeDrops {
		e.Verdict = Denied
	}
	e.DecidedBy, e.Reason = "the kernel", support.Shortfall()
	return false
}

// decide sets the verdict by the first rule that decides, in the order of the table: custom rules, policies, the drop.
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

// pass turns a denial on an interface in audit mode into what happens there.
func (e *InterfaceExplanation) pass() {
	e.Audited, e.Verdict, e.DecidedBy = true, Allowed, "audit mode"
	e.Reason = fmt.Sprintf("all policies that isolate %s are in audit mode, so the packet passes, and is counted and reported; "+
		"otherwise it would be denied: %s", e.Interface, e.Reason)
}

// holdersOf returns the pods that have an address.
// Several pods may have an address, for example on networks that are not connected.
func holdersOf(c *cache.Cache, addr netip.Addr) []cache.PeerView {
	var found []cache.PeerView
	c.Peers(func(p cache.PeerView) {
		if len(p.Has(addr)) > 0 {
			found = append(found, p)
		}
	})
	return found
}

// packet returns the query's packet in words, such as "80/tcp" or "icmpv6 type 128".
func (q Query) packet() string {
	switch q.Protocol {
	case policy.TCP, policy.UDP, policy.SCTP:
		return fmt.Sprintf("%d/%s", q.Port, policy.ProtocolName(q.Protocol))
	case protoICMP:
		return fmt.Sprintf("icmp type %d", q.ICMPType)
	case protoICMPv6:
		return fmt.Sprintf("icmpv6 type %d", q.ICMPType)
	}
	return fmt.Sprintf("protocol %d", q.Protocol)
}

// listOr returns the list with commas, or the text none for an empty list.
func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}
