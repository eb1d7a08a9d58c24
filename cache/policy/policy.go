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

	AllNetworks  bool // the policy is for every network, as its own networks exceed a limit
	ClusterPeers int  // peers with a namespaceSelector: pods of the whole cluster may be among them

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
	if len(p.Networks) > limits.PolicyNetworks {
		ps.Add(ForField, "%s", exceeds("policy-networks", limits.PolicyNetworks,
			"the policy isolates its pods on every network, and pods are peers only on the first of its networks"))
		p.Networks, p.AllNetworks = slices.Clone(p.Networks[:limits.PolicyNetworks]), true
	}
	for i, n := range p.Networks { // so that the annotation as a whole does not stay in memory
		p.Networks[i] = Key{Namespace: strings.Clone(n.Namespace), Name: strings.Clone(n.Name)}
	}
	spec := decodeSpec(o.Spec, &ps)
	var ok bool
	if p.Pods, ok = compileSelector(spec.PodSelector, "spec.podSelector", "the policy isolates every pod of its namespace", u, &ps); !ok {
		// An unknown selector may mean any pod. Isolating none would open what its author meant to close.
		p.Pods = labelindex.Everything()
	}
	isolates, noTypes := isolatedDirections(spec, &ps)
	p.NoTypes = noTypes
	groups := newGroupFactory(p.Networks)
	for _, d := range engine.Directions {
		s := compileSection(p.Key, d, spec.rules(d), groups, u, &ps)
		if isolates[d] {
			p.Sections[d] = s
		}
	}
	p.Items, p.ClusterPeers = policyItems+len(p.Networks)+u.items(), u.clusterPeers
	p.OverLimit = len(u.told) > 0 || p.AllNetworks
	p.Problems = ps.List()
	return p
}

// policyItems is the size of a policy without anything in it. stubItems is the most that the selector and the networks of a
// stub may have.
const (
	policyItems = 10
	stubItems   = 20
)

// Stub returns the policy without its rules: it isolates the same pods and allows nothing. A namespace whose policies
// exceed their limit together keeps the stubs of some. A stub takes little memory: where the selector or the networks are
// long, it isolates every pod of the namespace, or on every network.
func (p *Policy) Stub(reason Problem) *Policy {
	stub := *p
	if len(p.Networks) > stubItems {
		stub.Networks, stub.AllNetworks = nil, true
	}
	if p.Pods.Size() > stubItems {
		stub.Pods = labelindex.Everything()
	}
	stub.ClusterPeers = 0
	for d, s := range p.Sections {
		if s != nil {
			stub.Sections[d] = s.empty()
		}
	}
	stub.OverLimit = true
	stub.Problems = append([]Problem{reason}, p.Problems...)
	return &stub
}

// RoomProblem is the Problem of a policy that its namespace, or the node, has no room for.
func RoomProblem(limit string, value int) Problem {
	return Problem{Field: "spec", Message: "together with the other policies it " +
		exceeds(limit, value, "this policy isolates its pods and allows nothing")}
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
		if isolates == both && ps.isFull() {
			ps.more += len(list) - i // the list may have as many items as fit an object
			break
		}
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

// IsFor reports whether the policy is for a network.
func (p *Policy) IsFor(network Key) bool {
	if p.AllNetworks {
		return true
	}
	_, found := slices.BinarySearchFunc(p.Networks, network, CompareKeys)
	return found
}
