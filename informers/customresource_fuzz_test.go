package informers

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

const soundObject = `{"metadata":{"namespace":"ns","name":"sound","uid":"u","resourceVersion":"2",` +
	`"annotations":{"k8s.v1.cni.cncf.io/policy-for":"net"}},"spec":{}}`

// fuzzObject decodes bytes as every part of an answer. Whatever they are, nothing panics; and if they are JSON, a list that
// has them as an item has all other items too.
func fuzzObject(t *testing.T, k kind, d decoder, data []byte) {
	t.Helper()
	sink := cache.New(cache.Options{Limits: policy.DefaultLimits()})
	take := func(r *record) {
		switch {
		case r.problem == "" && (r.Name == "" || r.policy == nil && r.nad == nil):
			t.Errorf("neither a %s nor a problem: %+v", k.name, r)
		case r.problem == "":
			k.upsert(sink, r)
		}
		k.remove(sink, r.Key)
	}
	d.Decode(data, nil, &metav1.WatchEvent{}) //nolint:errcheck // it may be no event
	object, _, err := d.Decode(data, nil, nil)
	if r, ok := object.(*record); ok && err == nil {
		take(r)
		if r.version == "" {
			t.Error("a watch cannot go on from an object without a version")
		}
	}
	if list, err := d.decodeList(data); err == nil {
		for _, r := range list.Items {
			take(r)
		}
	}
	if !json.Valid(data) {
		return
	}
	const answer = `{"kind":"AnyList","metadata":{"resourceVersion":"3"},"items":[%s,%s,%s]}`
	list, err := d.decodeList(fmt.Appendf(nil, answer, soundObject, data, soundObject))
	if err != nil || len(list.Items) != 3 {
		t.Fatalf("a list with the object: %v", err)
	}
	for i, r := range list.Items {
		take(r)
		if i != 1 && (r.Name != "sound" || r.problem != "") {
			t.Errorf("item %d: %+v", i, r)
		}
	}
}

// metadata is the start of a sound object, up to its spec.
const metadata = `{"metadata":{"namespace":"ns","name":"p","resourceVersion":"1","annotations":{"k8s.v1.cni.cncf.io/policy-for":"net"}},"spec":`

func FuzzPolicyBytes(f *testing.F) {
	for _, seed := range []string{
		metadata + `{"podSelector":{},"ingress":[{"ports":[{"port":2147483648},{"port":80,"endPort":99999999999}]}]}}`,
		metadata + `[{"ingress":5}]}`,
		metadata + `{"egress":5,"policyTypes":"Egress","podSelector":[]}}`,
		`{"metadata":{"name":"p","annotations":5,"creationTimestamp":"yesterday","managedFields":[{"time":1}]}}`,
		`{"kind":"List","metadata":{"resourceVersion":"1"},"items":[null,` + soundObject + `,{"metadata":7}]}`,
		`{"type":"ADDED","object":` + soundObject + `}`,
		`{"kind":"Status","status":"Failure","code":410,"reason":"Expired"}`,
		metadata + strings.Repeat("[", 9998) + strings.Repeat("]", 9998) + "}",
		"null",
	} {
		f.Add([]byte(seed))
	}
	limits := policy.DefaultLimits()
	settings := Settings{Limits: &limits}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzObject(t, kinds.policy, decoder{settings.policyRecordOf}, data)
	})
}

func FuzzNADBytes(f *testing.F) {
	for _, seed := range []string{
		metadata + `{"config":"{\"type\":\"macvlan\"}"}}`,
		metadata + `{"config":"{\"plugins\":[{\"type\":7}]}"}}`,
		metadata + `{"config":"["}}`,
		metadata + `{"config":{"type":"macvlan"}}}`,
		metadata + `5}`,
		`{"metadata":{"name":"n","labels":5,"resourceVersion":"1"}}`,
		`{"kind":"List","metadata":{"resourceVersion":"1"},"items":[[],` + soundObject + `]}`,
		`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5"}}}`,
	} {
		f.Add([]byte(seed))
	}
	settings := Settings{}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzObject(t, kinds.nad, decoder{settings.nadRecordOf}, data)
	})
}
