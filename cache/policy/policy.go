package policy

import (
	"encoding/json"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// Key is the namespace and name of an object.
type Key = types.NamespacedName

// ForAnnotation names the networks that a policy is for, separated by commas.
const ForAnnotation = "k8s.v1.cni.cncf.io/policy-for"

// ForField is the path of the annotation in a Problem.
const ForField = "metadata.annotations[" + ForAnnotation + "]"

// Object is a MultiNetworkPolicy as its author wrote it.
type Object struct {
	Key
	UID      types.UID
	Version  string          // resource version
	Networks *string         // value of ForAnnotation; nil: absent
	Spec     json.RawMessage // JSON of any shape
}

// ObjectOf returns the Object of a typed policy.
func ObjectOf(p *mnpv1.MultiNetworkPolicy) Object {
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	o := Object{Key: Key{Namespace: p.Namespace, Name: p.Name}, UID: p.UID, Spec: spec}
	if networks, ok := p.Annotations[ForAnnotation]; ok {
		o.Networks = &networks
	}
	return o
}

// Policy is a compiled policy.
type Policy struct {
	Key      Key
	UID      types.UID
	Version  string // resource version
	Pods     *labelindex.Selector
	Networks []Key // sorted, unique
	Sections [len(engine.Directions)]*Section

	NoTypes   bool // policyTypes is absent: the rules say which directions the policy isolates
	Items     int  // size, as --limit namespace-items counts it
	OverLimit bool // a part allows nothing since it exceeds a limit
	Problems  []Problem
}

// Compile reads a policy. It never fails: see the package comment.
func Compile(o Object, limits *Limits) *Policy {
	var ps Problems
	p := &Policy{Key: o.Key, UID: o.UID, Version: o.Version}
	u := newUsage(limits)
	p.Networks = parseNetworks(o.Namespace, o.Networks, &ps)
	spec := decodeSpec(o.Spec, &ps)
	var ok bool
	if p.Pods, ok = compileSelector(spec.PodSelector, "spec.podSelector", "the policy isolates every pod of its namespace", u, &ps); !ok {
		// An unknown selector may mean any pod. Isolating none would open what its author meant to close.
		p.Pods = labelindex.Everything()
	}
	isolates, noTypes := isolatedDirections(spec, &ps)
	p.NoTypes = noTypes
	groups := newGroupFactory(peerNetworks(p.Networks, limits, &ps))
	for _, d := range engine.Directions {
		s := compileSection(p.Key, d, spec.rules(d), groups, u, &ps)
		if isolates[d] {
			p.Sections[d] = s
		}
	}
	p.Items = u.items()
	p.OverLimit = len(u.told) > 0 || len(p.Networks) > limits.PolicyNetworks
	p.Problems = ps.List()
	return p
}

// Stub returns the policy without its rules: it isolates the same pods and allows nothing. A namespace whose policies
// exceed their limit together keeps the stubs of some.
func (p *Policy) Stub(reason Problem) *Policy {
	stub := *p
	for d, s := range p.Sections {
		if s != nil {
			stub.Sections[d] = s.empty()
		}
	}
	stub.OverLimit = true
	stub.Problems = append([]Problem{reason}, p.Problems...)
	return &stub
}

// NamespaceProblem is the Problem of a policy that its namespace has no room for.
func NamespaceProblem(limits *Limits) Problem {
	return Problem{Field: "spec", Message: "all policies of the namespace together: " +
		exceeds("namespace-items", limits.NamespaceItems, "this policy isolates its pods and allows nothing")}
}

// isolatedDirections reads policyTypes. A type that is neither Ingress nor Egress may stand for either direction, so it
// isolates both.
func isolatedDirections(spec spec, ps *Problems) (isolates [len(engine.Directions)]bool, noTypes bool) {
	both := [len(engine.Directions)]bool{true, true}
	list, ok := decodeList(spec.PolicyTypes)
	if !ok {
		ps.Add("spec.policyTypes", "is not a list, so the policy isolates both directions")
		return both, false
	}
	for i, raw := range list {
		var t mnpv1.MultiPolicyType
		switch err := decode(raw, &t); {
		case err == nil && t == mnpv1.PolicyTypeIngress:
			isolates[engine.Ingress] = true
		case err == nil && t == mnpv1.PolicyTypeEgress:
			isolates[engine.Egress] = true
		default:
			ps.Add(item("spec.policyTypes", i), "%s is neither Ingress nor Egress, so the policy isolates both directions", quoteJSON(raw))
			isolates = both
		}
	}
	if len(list) == 0 {
		isolates[engine.Ingress], isolates[engine.Egress] = true, !spec.Egress.isEmptyList()
	}
	return isolates, len(list) == 0
}

// parseNetworks reads the networks that a policy is for, sorted.
func parseNetworks(namespace string, value *string, ps *Problems) []Key {
	if value == nil {
		ps.Add(ForField, "is missing, so the policy selects nothing: it says which networks the policy is for")
		return nil
	}
	var keys []Key
	for name := range strings.SplitSeq(*value, ",") {
		key, ok := ParseNetwork(name, namespace)
		if !ok {
			ps.Add(ForField, "%s is not the name of a network", Quote(strings.TrimSpace(name)))
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		ps.Add(ForField, "names no network, so the policy selects nothing")
	}
	slices.SortFunc(keys, CompareKeys)
	return slices.Compact(keys)
}

// peerNetworks returns the networks on which pods are peers of the policy. The policy isolates pods on the networks
// beyond the limit all the same.
func peerNetworks(networks []Key, limits *Limits, ps *Problems) []Key {
	if len(networks) <= limits.PolicyNetworks {
		return networks
	}
	ps.Add(ForField, "%s", exceeds("policy-networks", limits.PolicyNetworks, "no pod is a peer by its address on a network beyond it"))
	return networks[:limits.PolicyNetworks]
}

// IsFor reports whether the policy is for a network.
func (p *Policy) IsFor(network Key) bool {
	_, found := slices.BinarySearchFunc(p.Networks, network, CompareKeys)
	return found
}
