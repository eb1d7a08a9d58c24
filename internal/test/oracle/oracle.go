package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Oracle decides whether the policies allow a packet. It looks at all objects for each question, and so needs no index
// that could be wrong.
//
// It has a memory, because the specification asks for a memory: while the network status or the requested networks of a
// pod on its node cannot be read, the interfaces that were known stay known.
// It is written from the specification and shares no code with the agent.
type Oracle struct {
	Node    string   // the node of the agent under test: only its pods are enforced
	Plugins []string // the network types that policies isolate, as in --network-plugins
	Flags   Flags    // the agent's flags that change verdicts

	// The objects as the agent knows them. A stopped agent sees no changes.
	state State
	// The interfaces of the pods whose interfaces are known. The network status of a pod of another node counts only
	// for its addresses as a peer.
	attachments map[types.UID][]attachment
	// The answers of the current state, because all ports and protocols share an answer.
	memo map[question]answer
}

// attachment is an interface of a pod: an entry of its network status or of its requested networks. Requested networks
// have no addresses.
type attachment struct {
	iface   string
	network Key
	addrs   []netip.Addr
}

// Direction is a direction of policies, seen from the pod that the policies protect.
type Direction string

const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

// Ruling is the verdict of the policies of one pod on a packet, with the reason in words.
type Ruling struct {
	Allowed bool
	Why     string
}

// Observe takes the state after an event. It must get every state, in order: an interface is remembered from the last
// readable state.
func (o *Oracle) Observe(s State) {
	o.state = s
	o.memo = map[question]answer{}
	before := o.attachments
	o.attachments = map[types.UID][]attachment{}
	for _, p := range ObjectsOf[*corev1.Pod](s) {
		if IsOutside(p) {
			continue
		}
		status, readable := attachmentsOf(p)
		if p.Spec.NodeName != o.Node { // only the addresses of such a pod count, as a peer
			if readable {
				o.attachments[p.UID] = status
			}
			continue
		}
		// Both annotations count: an interface that is requested is isolated before Multus has written the status.
		requested, clear := requestedBy(p)
		all := slices.Concat(status, requested)
		remembered, known := before[p.UID]
		if !readable || !clear {
			for _, a := range remembered {
				// Only the interfaces are remembered, not their addresses.
				all = append(all, attachment{iface: a.iface, network: a.network})
			}
		}
		// A pod stays unknown while its status cannot be read, nothing is remembered of it, and it requests no
		// interface.
		if readable || known || len(all) > 0 {
			o.attachments[p.UID] = all
		}
	}
}

// Forget loses the memory and takes the state, like an agent that starts without a memory.
func (o *Oracle) Forget(s State) {
	o.attachments = nil
	o.Observe(s)
}

// Judge returns the verdict of the sender's policies and the verdict of the receiver's policies on a first packet.
// A packet arrives if both allow it. The verdict of a side that is no enforced pod is to allow.
func (o *Oracle) Judge(p Packet) (atSender, atReceiver Ruling) {
	return o.rule(Egress, p.From, p.To.Addr, p), o.rule(Ingress, p.To, p.From.Addr, p)
}

// JudgeFlow returns the verdicts of both sides on a packet of an open connection. With --established=keep the
// connection goes on. With --established=revoke a packet in the opening direction is judged like a first packet. A
// reply passes if the opening packet would pass, or if the policies allow the reply by itself. Custom rules come before
// all policies: where both directions are isolated, a custom rule that drops the opening packet drops the reply too.
func (o *Oracle) JudgeFlow(opened, reply Packet, isReply bool) (atSender, atReceiver Ruling) {
	if o.Flags["established"] != "revoke" {
		keep := Ruling{true, "the connection is established"}
		return keep, keep
	}
	if !isReply {
		return o.Judge(opened)
	}
	return o.reply(Egress, reply.From, reply.To.Addr, reply, opened), o.reply(Ingress, reply.To, reply.From.Addr, reply, opened)
}

// reply returns the verdict of the policies of one pod on a reply. d is the direction of the reply in the eyes of the pod.
func (o *Oracle) reply(d Direction, self Endpoint, peer netip.Addr, reply, opened Packet) Ruling {
	opening := Ingress
	if d == Ingress {
		opening = Egress
	}
	own, _ := o.answerTo(d, self, peer)
	other, _ := o.answerTo(opening, self, peer)
	if own.isolated && other.isolated {
		if ruling, decided := o.flagged(opening, opened); decided && !ruling.Allowed {
			return ruling
		}
	}
	if ruling := o.rule(d, self, peer, reply); ruling.Allowed {
		return ruling
	}
	return o.rule(opening, self, peer, opened)
}

// Isolated reports whether any policy isolates any interface of a pod. Of the enforced pods, just these must have a
// table.
func (o *Oracle) Isolated(pod Key) bool {
	p := o.state.Pod(pod)
	if p == nil {
		return false
	}
	for _, a := range o.attachments[p.UID] {
		for _, d := range []Direction{Ingress, Egress} {
			if len(o.isolating(d, p, a.iface)) > 0 {
				return true
			}
		}
	}
	return false
}

// Enforced reports whether the agent enforces policies for a pod: the pod exists, has not ended, runs on the agent's
// node but not on the node's network, and its interfaces are known.
func (o *Oracle) Enforced(pod Key) bool {
	p := o.state.Pod(pod)
	if p == nil || p.Spec.NodeName != o.Node || IsOutside(p) {
		return false
	}
	_, known := o.attachments[p.UID]
	return known
}

// question is everything that an [answer] depends on: protocols and ports are looked up in the answer.
// It is comparable, so that it can be the key of memo.
type question struct {
	direction Direction
	pod       Key
	iface     string
	peer      netip.Addr
}

// answer holds the rules that apply to a peer. Without isolation by a policy that drops, every packet passes.
type answer struct {
	isolated bool
	rules    []ruleFor
}

// ruleFor is a policy rule as it applies to one peer. A rule for other peers has neither all nor ports.
type ruleFor struct {
	name  string
	all   bool // the rule allows all ports and protocols
	ports []portRange
}

// portRange is a range of ports of a protocol, with both ends.
type portRange struct {
	proto    Protocol
	from, to int
}

// rule returns the verdict of the policies of one pod. The order is the agent's: isolation, flags, own packets, rules.
// self is the end that the policies protect, peer the address of the other end.
func (o *Oracle) rule(d Direction, self Endpoint, peer netip.Addr, packet Packet) Ruling {
	a, why := o.answerTo(d, self, peer)
	if !a.isolated {
		return Ruling{true, why}
	}
	if ruling, decided := o.flagged(d, packet); decided {
		return ruling
	}
	if d == Ingress && packet.From.Pod == self.Pod { // policies are about others; custom rules may be about anybody
		return Ruling{true, "a pod gets its own packets back"}
	}
	for _, r := range a.rules {
		if r.all {
			return Ruling{true, r.name + " allows all ports"}
		}
		for _, p := range r.ports {
			if p.proto == packet.Proto && p.from <= int(packet.Port) && int(packet.Port) <= p.to {
				return Ruling{true, fmt.Sprintf("%s allows %s/%d-%d", r.name, p.proto, p.from, p.to)}
			}
		}
	}
	return Ruling{false, fmt.Sprintf("no rule of the policies that isolate %s of %s on %s allows it", d, self.Pod, self.Iface)}
}

// answerTo returns the answer of the policies of one pod. If nothing isolates the pod's interface, it says why.
func (o *Oracle) answerTo(d Direction, self Endpoint, peer netip.Addr) (a answer, open string) {
	if !self.IsPod() || !o.Enforced(self.Pod) {
		return answer{}, string(d) + " of " + self.String() + " is not enforced here"
	}
	q := question{d, self.Pod, self.Iface, peer}
	a, ok := o.memo[q]
	if !ok {
		a = o.answer(q)
		o.memo[q] = a
	}
	if !a.isolated {
		open = fmt.Sprintf("no policy isolates %s of %s on %s", d, self.Pod, self.Iface)
	}
	return a, open
}

// answer collects the rules of all isolating policies. A packet passes if any of them allows it.
func (o *Oracle) answer(q question) answer {
	p := o.state.Pod(q.pod)
	isolating := o.isolating(q.direction, p, q.iface)
	a := answer{isolated: slices.ContainsFunc(isolating, o.drops)}
	for _, policy := range isolating {
		for i, r := range rulesOf(policy, q.direction) {
			found := o.ruleFor(q, policy, p, r)
			found.name = fmt.Sprintf("%s/%s %s[%d]", policy.Namespace, policy.Name, q.direction, i)
			a.rules = append(a.rules, found)
		}
	}
	return a
}

// drops reports whether a policy drops what it does not allow: in audit mode it does not. Only the exact word is a mode; any other
// text leaves the policy in force.
func (o *Oracle) drops(policy *mnpv1.MultiNetworkPolicy) bool {
	mode, annotated := policy.Annotations["multi-networkpolicy/mode"]
	if !annotated {
		return o.Flags["audit"] != "true"
	}
	return strings.TrimSpace(mode) != "audit"
}

// isolating returns the policies that isolate an interface of a pod in a direction.
// p must not be nil.
func (o *Oracle) isolating(d Direction, p *corev1.Pod, iface string) []*mnpv1.MultiNetworkPolicy {
	var networks []Key
	iface, _, _ = strings.Cut(iface, ".") // a VLAN device is isolated like the interface that it is on
	for _, a := range o.attachments[p.UID] {
		if a.iface == iface && o.isIsolated(a.network, p) {
			networks = append(networks, a.network)
		}
	}
	var out []*mnpv1.MultiNetworkPolicy
	for _, policy := range ObjectsOf[*mnpv1.MultiNetworkPolicy](o.state) {
		if policy.Namespace != p.Namespace || !isFor(policy, d) {
			continue
		}
		// Which pods a selector that is not valid means is not known, so it means all of them.
		matches, valid := selects(policy.Spec.PodSelector, p.Labels)
		if valid && !matches {
			continue
		}
		if slices.ContainsFunc(networksOf(policy), func(n Key) bool { return slices.Contains(networks, n) }) {
			out = append(out, policy)
		}
	}
	return out
}

// isIsolated reports whether policies isolate a pod's interfaces on a network: its type is not known or one that they isolate,
// or the interfaces may be older than the definition.
func (o *Oracle) isIsolated(network Key, p *corev1.Pod) bool {
	nad, ok := o.state[Ref{KindNAD, network}].(*netv1.NetworkAttachmentDefinition)
	if !ok {
		return true
	}
	t := PluginTypeOf(nad)
	return t == "" || slices.Contains(o.Plugins, t) || !speaksFor(nad, p)
}

// isFor says whether a policy isolates a direction. A type that is none may stand for either.
func isFor(policy *mnpv1.MultiNetworkPolicy, d Direction) bool {
	if len(policy.Spec.PolicyTypes) == 0 {
		return d == Ingress || len(policy.Spec.Egress) > 0
	}
	for _, t := range policy.Spec.PolicyTypes {
		switch t {
		case mnpv1.PolicyTypeIngress:
			if d == Ingress {
				return true
			}
		case mnpv1.PolicyTypeEgress:
			if d == Egress {
				return true
			}
		default:
			return true
		}
	}
	return false
}
