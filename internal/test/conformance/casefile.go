package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// caseFile is a case as a person writes it, in a YAML document:
//
//	case: what it shows
//	namespaces: [ops team=ops]
//	networks: [a bridge]              # NAME TYPE [WIRE]; two networks with one wire share it
//	outsiders: [a 10.1.9.9]           # WIRE ADDRESS...
//	pods:
//	- web app=web | net1 a 10.1.0.1 fd00:1::1 | vrf:net2 b 10.2.0.1 | port http=80/TCP
//	policies:
//	- {name: p, for: a, spec: {...}}
//	allowed: [client -> web tcp/80 udp/53]
//	denied: [10.1.9.9 -> web@net1 icmp]
//	open: [client -> web tcp/80]      # connections that stay open, before the policies come
//	then:                             # what happens next
//	- remove: [pod ops/client]
//	  denied: [client -> web tcp/80]
//	  allowed: [client => web tcp/80, client <= web tcp/80]   # of open connections: to the server, and its answers
type caseFile struct {
	// One sentence that says which behavior the case shows. It is the name of the test.
	Case string `json:"case"`
	// The flags apply to every agent of the case, also to an agent that starts later.
	Flags oracle.Flags `json:"flags,omitempty"`
	Needs []string     `json:"needs,omitempty"` // what not all kernels have: types of devices, "sctp"
	// Each line is a wire and addresses on the wire: hosts that are no pods.
	Outsiders []string `json:"outsiders,omitempty"`
	// The steps after the first step. The fields of the first step are at the top level of the document.
	Then     []stepFile `json:"then,omitempty"`
	stepFile `json:",inline"`
}

// stepFile is a step. Its events happen in the order of the fields, whatever the order in the document is: an agent
// stops before the objects change, and connections are open before the policies of the same step come.
type stepFile struct {
	When   string   `json:"when,omitempty"`
	Stop   bool     `json:"stop,omitempty"` // the agent
	Remove []string `json:"remove,omitempty"`
	// Each line is a name and labels, for example "ops team=ops".
	Namespaces []string `json:"namespaces,omitempty"`
	// Each line is a name, a type, and maybe a wire; see [builder.network].
	Networks []string `json:"networks,omitempty"`
	// Each line is a pod with its interfaces; see [builder.pod].
	Pods []string `json:"pods,omitempty"`
	// Each line is an expectation; the connections that it describes are opened.
	Open     []string     `json:"open,omitempty"`
	Policies []policyFile `json:"policies,omitempty"`
	Forget   bool         `json:"forget,omitempty"`  // all entries of connection tracking
	Foreign  []string     `json:"foreign,omitempty"` // pods that another agent left its table in
	// Whole objects, which the short forms cannot express. [Format] writes only this form.
	Events []eventFile `json:"events,omitempty"`
	Start  bool        `json:"start,omitempty"` // the agent
	// The flows that pass, and the flows that are dropped, once the agent has done its work.
	Allowed []string `json:"allowed,omitempty"`
	Denied  []string `json:"denied,omitempty"`
	// Nothing is sent after the step: its state is only the way to the next step.
	Quiet bool `json:"quiet,omitempty"`
}

// policyFile is a policy in its short form.
type policyFile struct {
	// NAME, or NAMESPACE/NAME. Without a namespace the policy is in the namespace "default".
	Name string `json:"name"`
	// The annotation policy-for. Nil means that the policy has no such annotation, which is not the same as an empty
	// annotation.
	For  *string                      `json:"for,omitempty"`
	Mode *string                      `json:"mode,omitempty"` // the annotation mode; nil: absent
	Spec mnpv1.MultiNetworkPolicySpec `json:"spec"`
}

// eventFile is one event with a whole object, as [Format] writes the event. Exactly one field is set.
type eventFile struct {
	Put json.RawMessage `json:"put,omitempty"`
	// The kind and key of a deleted object, for example "Pod a/x".
	Gone   string      `json:"gone,omitempty"`
	Settle bool        `json:"settle,omitempty"`
	Open   string      `json:"open,omitempty"`
	Forget bool        `json:"forget,omitempty"`
	Stop   bool        `json:"stop,omitempty"`
	Start  bool        `json:"start,omitempty"`
	Table  *oracle.Key `json:"table,omitempty"`
}

// ReadCases reads the cases of a file, or of all YAML files of a directory.
// The documents of a file are separate cases. The name of a case is the name of the file, a slash, and the case's own
// name. The cases of a directory come in the order of the names of the files.
func ReadCases(path string) ([]Case, error) {
	files := []string{path}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.yaml")); err != nil {
			return nil, err
		}
	}
	var out []Case
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, document := range bytes.Split(data, []byte("\n---\n")) {
			c, err := parseCase(document)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			c.Name = strings.TrimSuffix(filepath.Base(file), ".yaml") + "/" + c.Name
			out = append(out, c)
		}
	}
	return out, nil
}

// parseCase reads one document. A field that does not exist is an error: a mistyped "denied" would otherwise be a case
// that expects nothing.
// document is a part of the file between two lines "---".
func parseCase(document []byte) (Case, error) {
	var f caseFile
	if err := yaml.UnmarshalStrict(document, &f); err != nil {
		return Case{}, err
	}
	if f.Case == "" {
		return Case{}, errors.New("a case without a name")
	}
	// One builder reads all steps, because a later step may name a network of an earlier step.
	b := newBuilder()
	c := Case{Name: f.Case, Flags: f.Flags, Needs: f.Needs}
	for _, s := range append([]stepFile{f.stepFile}, f.Then...) {
		step, err := b.step(s)
		if err != nil {
			return Case{}, fmt.Errorf("case %q: %w", f.Case, err)
		}
		c.Steps = append(c.Steps, step)
	}
	for _, text := range f.Outsiders {
		outsiders, err := parseOutsiders(text)
		if err != nil {
			return Case{}, fmt.Errorf("case %q: %w", f.Case, err)
		}
		c.Outsiders = append(c.Outsiders, outsiders...)
	}
	return c, nil
}

// parseOutsiders reads "w0 10.1.9.9 fd00:1::9": a wire and the addresses of outsiders on it.
// An outsider has a single address, so the line gives several outsiders.
func parseOutsiders(text string) ([]Outsider, error) {
	var out []Outsider
	fields := strings.Fields(text)
	for _, s := range fields[1:] {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		out = append(out, Outsider{fields[0], a})
	}
	return out, nil
}

// builder turns the short forms of a case into objects. It remembers the networks and namespaces that earlier lines
// made.
// It is for a single case.
type builder struct {
	// The wire of each network.
	wires map[oracle.Key]string // of networks
	// The namespaces that exist, so that [builder.need] makes each of them once.
	namespaces map[string]bool
}

// newBuilder returns a builder that knows no network and no namespace.
func newBuilder() *builder {
	return &builder{wires: map[oracle.Key]string{}, namespaces: map[string]bool{}}
}

// step turns the fields of a step into events.
func (b *builder) step(f stepFile) (Step, error) {
	s := Step{Name: f.When, Quiet: f.Quiet}
	put := func(o oracle.Object) { s.Events = append(s.Events, Event{Put: o}) }
	if f.Stop {
		s.Events = append(s.Events, Event{Stop: true})
	}
	for _, text := range f.Remove {
		ref, err := parseRef(text)
		if err != nil {
			return s, err
		}
		s.Events = append(s.Events, Event{Gone: &ref})
	}
	for _, text := range f.Namespaces {
		fields := strings.Fields(text)
		put(b.namespace(fields[0], parseLabels(fields[1:])))
	}
	for _, text := range f.Networks {
		if nad := b.network(text); nad != nil {
			put(nad)
		}
	}
	for _, text := range f.Pods {
		pod, err := b.pod(text)
		if err != nil {
			return s, fmt.Errorf("pod %q: %w", text, err)
		}
		// An API server has no pod in a namespace that does not exist. A case need not name a namespace without labels.
		b.need(pod.Namespace, put)
		put(pod)
	}
	for _, text := range f.Open {
		e, err := parseExpectation(text, true)
		if err != nil {
			return s, err
		}
		s.Events = append(s.Events, Event{Open: &e})
	}
	for _, p := range f.Policies {
		policy := p.policy()
		b.need(policy.Namespace, put)
		put(policy)
	}
	if f.Forget {
		s.Events = append(s.Events, Event{Forget: true})
	}
	for _, text := range f.Foreign {
		key := parseKey(text)
		s.Events = append(s.Events, Event{Table: &key})
	}
	for _, e := range f.Events {
		event, err := e.event()
		if err != nil {
			return s, err
		}
		s.Events = append(s.Events, event)
	}
	if f.Start {
		s.Events = append(s.Events, Event{Start: true})
	}
	var err error
	s.Expect, err = parseExpectations(f.Allowed, f.Denied)
	return s, err
}

// parseExpectations reads the flows that pass, and then the flows that are dropped.
// All flows of allowed are expected to pass, and all flows of denied to be dropped.
func parseExpectations(allowed, denied []string) ([]Expectation, error) {
	var out []Expectation
	for _, text := range slices.Concat(allowed, denied) {
		e, err := parseExpectation(text, len(out) < len(allowed))
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// parseRef reads the short form of a reference, for example "pod ops/client" or "network a". The kind is a word of the
// case files, not a kind of the API.
func parseRef(text string) (oracle.Ref, error) {
	fields := strings.Fields(text)
	kinds := map[string]string{"pod": oracle.KindPod, "namespace": oracle.KindNamespace, "network": oracle.KindNAD, "policy": oracle.KindPolicy}
	if len(fields) != 2 || kinds[fields[0]] == "" {
		return oracle.Ref{}, fmt.Errorf("%q is not of the form %q", text, "KIND NAMESPACE/NAME")
	}
	ref := oracle.Ref{Kind: kinds[fields[0]], Key: parseKey(fields[1])}
	// A namespace is the only kind without a namespace of its own.
	if ref.Kind == oracle.KindNamespace {
		ref.Namespace = ""
	}
	return ref, nil
}

// need makes a namespace if the case has not made it yet: an API server refuses objects whose namespace does not exist.
// put appends the object to the step.
func (b *builder) need(name string, put func(oracle.Object)) {
	if !b.namespaces[name] {
		put(b.namespace(name, nil))
	}
}

// namespace makes a namespace whose UID is its name: a case that puts it twice changes the labels of one object.
// The labels may be nil.
func (b *builder) namespace(name string, labels map[string]string) *corev1.Namespace {
	b.namespaces[name] = true
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, UID: types.UID(name)}}
}

// network reads NAME TYPE [WIRE]: "a bridge", "ops/a chain:bridge+tuning w0", "a broken" or "a none". The result is nil
// for the type "none": the network has a wire, but no definition.
func (b *builder) network(text string) oracle.Object {
	fields := strings.Fields(text)
	key := parseKey(fields[0])
	kind := fields[1]
	// The wire has the name of the network unless a wire is given. A network that comes again, with another type, keeps
	// its wire.
	if _, known := b.wires[key]; !known || len(fields) > 2 {
		b.wires[key] = key.Name
	}
	if len(fields) > 2 {
		b.wires[key] = fields[2]
	}
	config := fmt.Sprintf(`{"cniVersion": "0.3.1", "type": %q}`, kind)
	chain, isChain := strings.CutPrefix(kind, "chain:")
	switch {
	case kind == "none":
		return nil
	case kind == "broken":
		config = "{"
	case kind == "empty":
		config = ""
	case isChain:
		config = fmt.Sprintf(`{"cniVersion": "0.3.1", "plugins": [{"type": "%s"}]}`, strings.ReplaceAll(chain, "+", `"}, {"type": "`))
	}
	return &netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: types.UID(key.String())},
		Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
}

// policy makes the whole object. The UID is the key, so that a policy that a later step puts under the same name is a
// change of the same object.
func (p policyFile) policy() *mnpv1.MultiNetworkPolicy {
	key := parseKey(p.Name)
	policy := &mnpv1.MultiNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: types.UID(key.String())},
		Spec:       p.Spec,
	}
	if p.For != nil {
		policy.Annotations = map[string]string{policyForAnnotation: *p.For}
	}
	if p.Mode != nil {
		metav1.SetMetaDataAnnotation(&policy.ObjectMeta, modeAnnotation, *p.Mode)
	}
	return policy
}

// parseLabels reads "app=web". A word without an equals sign is a label with an empty value.
// The result is never nil.
func parseLabels(fields []string) map[string]string {
	labels := map[string]string{}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		labels[k] = v
	}
	return labels
}
