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

// ForAnnotation is the annotation with the networks of a policy, separated by commas.
const ForAnnotation = "k8s.v1.cni.cncf.io/policy-for"

// ForField is the path of the annotation in a Problem.
const ForField = "metadata.annotations[" + ForAnnotation + "]"

// ModeAnnotation is the annotation of a policy with its mode.
const ModeAnnotation = "multi-networkpolicy/mode"

// Mode says whether a policy isolates. The zero value is a policy without the annotation: --audit decides.
type Mode string

// The modes, as values of ModeAnnotation. In audit mode the rules of a policy allow packets as always, and the policy isolates nothing:
// packets that it would drop pass, and are counted and reported.
const (
	Enforce Mode = "enforce"
	Audit   Mode = "audit"
)

// IsAudited reports whether the policy is in audit mode. all is the value of the flag --audit.
func (p *Policy) IsAudited(all bool) bool { return p.Mode == Audit || all && p.Mode != Enforce }

// parseMode reads the value of ModeAnnotation; nil: absent. Any other value is a Problem, and enforces.
func parseMode(value *string, ps *Problems) Mode {
	if value == nil {
		return ""
	}
	switch m := Mode(strings.TrimSpace(*value)); m {
	case Enforce, Audit:
		return m
	}
	ps.Add("metadata.annotations["+ModeAnnotation+"]", "%s is neither %s nor %s, so the policy is enforced", Quote(*value), Enforce, Audit)
	return Enforce
}

// Object is a MultiNetworkPolicy before compilation, reduced to the fields that matter.
// All else of the object, such as labels, changes nothing.
type Object struct {
	Key
	UID      types.UID
	Version  string          // resource version
	Networks *string         // value of ForAnnotation; nil: absent
	Mode     *string         // value of ModeAnnotation; nil: absent
	Spec     json.RawMessage // JSON of any shape
}

// ObjectOf returns the Object of a typed policy.
// A typed policy cannot have values of wrong types, so tests of these write JSON.
func ObjectOf(p *mnpv1.MultiNetworkPolicy) Object {
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		panic(err) // a spec has only strings and numbers, so marshaling never fails
	}
	o := Object{Key: Key{Namespace: p.Namespace, Name: p.Name}, UID: p.UID, Spec: spec}
	if networks, ok := p.Annotations[ForAnnotation]; ok {
		o.Networks = &networks
	}
	if mode, ok := p.Annotations[ModeAnnotation]; ok {
		o.Mode = &mode
	}
	return o
}

// Policy is a compiled policy. It is immutable, and safe for concurrent use.
type Policy struct {
	Key      Key
	UID      types.UID
	Version  string               // resource version
	Pods     *labelindex.Selector // the pods that the policy isolates, in its namespace
	Networks []Key                // sorted, unique
	Mode     Mode
	Sections [len(engine.Directions)]*Section // nil: the policy does not isolate this direction

	AllNetworks  bool // the policy isolates on every network, since its networks exceed a limit
	ClusterPeers int  // number of peers with a namespaceSelector, which may select pods of the whole cluster

	NoTypes   bool // policyTypes is absent, so the presence of egress rules decides which directions are isolated
	Items     int  // size in items of --limit namespace-items
	OverLimit bool // a part allows nothing since it exceeds a limit
	Problems  []Problem
}

// Compile compiles a policy. It never fails: invalid parts allow nothing and become Problems, see the package comment.
// It holds no lock and may take milliseconds for a policy at the limits.
func Compile(o Object, limits *Limits) *Policy {
	var ps Problems
	p := &Policy{Key: o.Key, UID: o.UID, Version: o.Version}
	u := newUsage(limits)
	p.Networks = parseNetworks(o.Namespace, o.Networks, &ps)
	p.Mode = parseMode(o.Mode, &ps)
	if len(p.Networks) > limits.PolicyNetworks {
		ps.Add(ForField, "%s", exceeds("policy-networks", limits.PolicyNetworks,
			"the policy isolates its pods on every network, and pods are peers only on the first of its networks"))
		p.Networks, p.AllNetworks = slices.Clone(p.Networks[:limits.PolicyNetworks]), true
	}
	for i, n := range p.Networks { // cloned, since substrings would keep the whole annotation in memory
		p.Networks[i] = Key{Namespace: strings.Clone(n.Namespace), Name: strings.Clone(n.Name)}
	}
	spec := decodeSpec(o.Spec, &ps)
	var ok bool
	if p.Pods, ok = compileSelector(spec.PodSelector, "spec.podSelector", "the policy isolates every pod of its namespace", u, &ps); !ok {
		// The author meant to isolate some pods, but it is unknown which pods. Isolating no pod would leave them open.
		p.Pods = labelindex.Everything()
	}
	isolates, noTypes := isolatedDirections(spec, &ps)
	p.NoTypes = noTypes
	// Both directions are compiled, so that problems of a direction that is not isolated are reported too.
	groups := newGroupFactory(p.Networks)
	for _, d := range engine.Directions {
		s := compileSection(p.Key, d, spec.rules(d), groups, u, &ps)
		if isolates[d] {
			p.Sections[d] = s
		}
	}
	p.Items, p.ClusterPeers = policyItems+len(p.Networks)+u.items(), u.clusterPeers
	p.OverLimit = len(u.reported) > 0 || p.AllNetworks
	p.Problems = ps.List()
	return p
}

// policyItems is the size of an empty policy. stubItems is the maximum size of the selector and of the networks of a stub.
const (
	policyItems = 10
	stubItems   = 20
)

// Stub returns the policy without its rules: it isolates the same pods and allows nothing. The cache keeps stubs in place of
// policies if the policies of a namespace together exceed a limit. A stub takes little memory: instead of a long selector it
// isolates every pod of the namespace, and instead of many networks every network.
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

// RoomProblem returns the Problem of a policy that exceeds a limit of its namespace or of the node, together with other
// policies.
func RoomProblem(limit string, value int) Problem {
	return Problem{Field: "spec", Message: "together with the other policies it " +
		exceeds(limit, value, "this policy isolates its pods and allows nothing")}
}

// isolatedDirections returns the directions that a policy isolates. An unknown type isolates both, since its author meant some
// direction. Without types, a policy isolates ingress, and egress if it has egress rules.
func isolatedDirections(spec spec, ps *Problems) (isolates [len(engine.Directions)]bool, noTypes bool) {
	both := [len(engine.Directions)]bool{true, true}
	list, ok := decodeList(spec.PolicyTypes)
	if !ok {
		ps.Add("spec.policyTypes", "is not a list, so the policy isolates both directions")
		return both, false
	}
	for i, raw := range list {
		if isolates == both && ps.isFull() {
			ps.more += len(list) - i // not decoded, since the list may be as long as an object can be
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

// parseNetworks reads the networks of a policy from the value of its annotation. They are sorted and unique.
// value is nil if the annotation is absent. Names without a namespace are in the namespace of the policy.
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

// IsFor reports whether the policy isolates interfaces on a network.
// The network need not exist.
func (p *Policy) IsFor(network Key) bool {
	if p.AllNetworks {
		return true
	}
	_, found := slices.BinarySearchFunc(p.Networks, network, CompareKeys)
	return found
}
