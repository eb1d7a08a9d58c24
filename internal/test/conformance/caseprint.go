package conformance

import (
	"encoding/json"
	"fmt"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// groupVersions are the API versions of the kinds. Objects in memory carry no version; a printed object needs it.
var groupVersions = map[string]schema.GroupVersion{
	oracle.KindPod: corev1.SchemeGroupVersion, oracle.KindNamespace: corev1.SchemeGroupVersion,
	oracle.KindNAD: netv1.SchemeGroupVersion, oracle.KindPolicy: mnpv1.SchemeGroupVersion,
}

// newObject makes an empty object to decode into. It is nil for a kind that the cases do not have.
func newObject(kind string) oracle.Object {
	switch kind {
	case oracle.KindPod:
		return &corev1.Pod{}
	case oracle.KindNamespace:
		return &corev1.Namespace{}
	case oracle.KindNAD:
		return &netv1.NetworkAttachmentDefinition{}
	case oracle.KindPolicy:
		return &mnpv1.MultiNetworkPolicy{}
	}
	return nil
}

// event reads an event of the form that [formatEvent] writes.
func (f eventFile) event() (Event, error) {
	e := Event{Settle: f.Settle, Stop: f.Stop, Start: f.Start, Forget: f.Forget, Table: f.Table}
	if f.Open != "" {
		open, err := parseExpectation(f.Open, true)
		e.Open = &open
		return e, err
	}
	if f.Gone != "" {
		kind, name, _ := strings.Cut(f.Gone, " ")
		ref := oracle.Ref{Kind: kind, Key: oracle.Key{Name: name}}
		if ns, name, ok := strings.Cut(name, "/"); ok {
			ref.Key = oracle.Key{Namespace: ns, Name: name}
		}
		e.Gone = &ref
	}
	if len(f.Put) == 0 {
		return e, nil
	}
	// The kind decides the type of the object, so it is read first, and then the whole object again.
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(f.Put, &head); err != nil {
		return e, err
	}
	o := newObject(head.Kind)
	if o == nil {
		return e, fmt.Errorf("an object of kind %q", head.Kind)
	}
	e.Put = o
	return e, json.Unmarshal(f.Put, o)
}

// Format writes a case in a form that [ReadCases] reads, with whole objects. The output goes into testdata/regressions,
// so it must lose nothing: the short forms could not express a random pod.
func Format(c Case) (string, error) {
	f := caseFile{Case: c.Name, Flags: c.Flags}
	for _, o := range c.Outsiders {
		f.Outsiders = append(f.Outsiders, o.Wire+" "+o.Addr.String())
	}
	for _, s := range c.Steps {
		step := stepFile{When: s.Name, Quiet: s.Quiet}
		for _, e := range s.Events {
			event, err := formatEvent(e)
			if err != nil {
				return "", err
			}
			step.Events = append(step.Events, event)
		}
		for _, e := range s.Expect {
			if e.Allowed {
				step.Allowed = append(step.Allowed, e.Text)
			} else {
				step.Denied = append(step.Denied, e.Text)
			}
		}
		f.Then = append(f.Then, step)
	}
	f.Quiet = true // of the first step, see caseFile: it has no events and must not be compared
	out, err := yaml.Marshal(f)
	return string(out), err
}

// formatEvent writes an event. The object is copied, because setting its kind changes it, and cases share objects.
// Exactly a single field of the result is set.
func formatEvent(e Event) (eventFile, error) {
	f := eventFile{Settle: e.Settle, Stop: e.Stop, Start: e.Start, Forget: e.Forget, Table: e.Table}
	if e.Open != nil {
		f.Open = e.Open.Text
	}
	if e.Gone != nil {
		f.Gone = e.Gone.String()
	}
	if e.Put == nil {
		return f, nil
	}
	o := e.Put.DeepCopyObject().(oracle.Object)
	kind := oracle.RefOf(o).Kind
	o.GetObjectKind().SetGroupVersionKind(groupVersions[kind].WithKind(kind))
	raw, err := json.Marshal(o)
	f.Put = raw
	return f, err
}
