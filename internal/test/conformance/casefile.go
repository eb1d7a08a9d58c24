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
	Case      string     `json:"case"`
	Flags     Flags      `json:"flags,omitempty"`
	Needs     []string   `json:"needs,omitempty"` // what not all kernels have: types of devices, "sctp"
	Outsiders []string   `json:"outsiders,omitempty"`
	Then      []stepFile `json:"then,omitempty"`
	stepFile  `json:",inline"`
}

// stepFile is a step. Its events come in the order of the fields.
type stepFile struct {
	When       string       `json:"when,omitempty"`
	Stop       bool         `json:"stop,omitempty"` // the agent
	Remove     []string     `json:"remove,omitempty"`
	Namespaces []string     `json:"namespaces,omitempty"`
	Networks   []string     `json:"networks,omitempty"`
	Pods       []string     `json:"pods,omitempty"`
	Open       []string     `json:"open,omitempty"`
	Policies   []policyFile `json:"policies,omitempty"`
	Forget     bool         `json:"forget,omitempty"`  // all entries of connection tracking
	Foreign    []string     `json:"foreign,omitempty"` // pods that another agent left its table in
	Events     []eventFile  `json:"events,omitempty"`
	Start      bool         `json:"start,omitempty"` // the agent
	Allowed    []string     `json:"allowed,omitempty"`
	Denied     []string     `json:"denied,omitempty"`
	Quiet      bool         `json:"quiet,omitempty"`
}

type policyFile struct {
	Name string                       `json:"name"`
	For  *string                      `json:"for,omitempty"`
	Spec mnpv1.MultiNetworkPolicySpec `json:"spec"`
}

// eventFile is an event with a whole object.
type eventFile struct {
	Put    json.RawMessage `json:"put,omitempty"`
	Gone   string          `json:"gone,omitempty"`
	Settle bool            `json:"settle,omitempty"`
	Open   string          `json:"open,omitempty"`
	Forget bool            `json:"forget,omitempty"`
	Stop   bool            `json:"stop,omitempty"`
	Start  bool            `json:"start,omitempty"`
	Table  *Key            `json:"table,omitempty"`
}

// ReadCases reads the cases of a file, or of all YAML files of a directory.
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

func parseCase(document []byte) (Case, error) {
	var f caseFile
	if err := yaml.UnmarshalStrict(document, &f); err != nil {
		return Case{}, err
	}
	if f.Case == "" {
		return Case{}, errors.New("a case without a name")
	}
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

// builder makes objects of what a person writes.
type builder struct {
	wires      map[Key]string // of networks
	namespaces map[string]bool
}

func newBuilder() *builder { return &builder{wires: map[Key]string{}, namespaces: map[string]bool{}} }

func (b *builder) step(f stepFile) (Step, error) {
	s := Step{Name: f.When, Quiet: f.Quiet}
	put := func(o Object) { s.Events = append(s.Events, Event{Put: o}) }
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

// parseRef reads "pod ops/client" or the like.
func parseRef(text string) (Ref, error) {
	fields := strings.Fields(text)
	kinds := map[string]string{"pod": kindPod, "namespace": kindNamespace, "network": kindNAD, "policy": kindPolicy}
	if len(fields) != 2 || kinds[fields[0]] == "" {
		return Ref{}, fmt.Errorf("%q is not of the form %q", text, "KIND NAMESPACE/NAME")
	}
	ref := Ref{kinds[fields[0]], parseKey(fields[1])}
	if ref.Kind == kindNamespace {
		ref.Namespace = ""
	}
	return ref, nil
}

// need makes a namespace be there, as an API server would ask for.
func (b *builder) need(name string, put func(Object)) {
	if !b.namespaces[name] {
		put(b.namespace(name, nil))
	}
}

func (b *builder) namespace(name string, labels map[string]string) *corev1.Namespace {
	b.namespaces[name] = true
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, UID: types.UID(name)}}
}

// network reads "a bridge", "ops/a chain:bridge+tuning w0", "a broken" or "a none". It is nil for a network that has no
// definition.
func (b *builder) network(text string) Object {
	fields := strings.Fields(text)
	key := parseKey(fields[0])
	kind := fields[1]
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

func (p policyFile) policy() *mnpv1.MultiNetworkPolicy {
	key := parseKey(p.Name)
	policy := &mnpv1.MultiNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: types.UID(key.String())},
		Spec:       p.Spec,
	}
	if p.For != nil {
		policy.Annotations = map[string]string{policyForAnnotation: *p.For}
	}
	return policy
}

func parseLabels(fields []string) map[string]string {
	labels := map[string]string{}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		labels[k] = v
	}
	return labels
}
