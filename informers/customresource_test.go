package informers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// badObject is an object with a mistake that a loose schema lets through.
type badObject struct {
	name   string
	object func(name string, version int) string
	want   string // for a policy that is taken: a spec that means the same; empty: the object is not taken
	report string // the start of a problem that is reported; empty: none
}

// withSpec, withMetadata and replaced make objects that are valid except for a part.
func withSpec(resource, spec string) func(string, int) string {
	return func(name string, version int) string { return object(resource, name, version, `"spec":`+spec) }
}

func withMetadata(resource, field string) func(string, int) string {
	return func(name string, version int) string {
		return strings.Replace(object(resource, name, version, `"spec":{}`), `"metadata":{`, `"metadata":{`+field+`,`, 1)
	}
}

func replaced(resource, old, now string) func(string, int) string {
	return func(name string, version int) string {
		return strings.Replace(object(resource, name, version, `"spec":{}`), old, now, 1)
	}
}

const onlyPort80 = `{"ingress":[{"ports":[{"port":80}]}]}`

var badPolicies = []badObject{
	{"port", withSpec(policies, `{"ingress":[{"ports":[{"port":80},{"port":2147483648}]}]}`), onlyPort80, "spec.ingress[0].ports[1]"},
	{"end-port", withSpec(policies, `{"ingress":[{"ports":[{"port":1,"endPort":99999999999},{"port":80}]}]}`), onlyPort80, "spec.ingress[0].ports[0]"},
	{"spec", withSpec(policies, `[1]`), `{"policyTypes":["Ingress","Egress"]}`, "spec: "},
	{"ingress", withSpec(policies, `{"ingress":5}`), `{"policyTypes":["Ingress"]}`, "spec.ingress: "},
	{"depth", withSpec(policies, `{"x":`+strings.Repeat("[", 9997)+strings.Repeat("]", 9997)+`}`), `{}`, ""},
	{"labels", withMetadata(policies, `"labels":5`), `{}`, ""},
	{"creation", withMetadata(policies, `"creationTimestamp":"yesterday"`), `{}`, ""},
	{"managers", withMetadata(policies, `"managedFields":{"time":5}`), `{}`, ""},
	{"annotations", replaced(policies, `{"k8s.v1.cni.cncf.io/policy-for":"net"}`, `5`), "", "metadata: the object cannot be decoded"},
	{"annotation", replaced(policies, `policy-for":"net"`, `policy-for":5`), "", "metadata: the object cannot be decoded"},
}

// compiled is the policy with this spec, for the network net.
func compiled(name, spec string) *policy.Policy {
	networks := "net"
	o := policy.Object{Key: types.NamespacedName{Namespace: "ns", Name: name}, Networks: &networks, Spec: []byte(spec)}
	return policy.Compile(o, &limits)
}

// checkPolicy compares a policy in the sink, and the reported problems, with the expectation for a bad object.
func checkPolicy(t *testing.T, s *started, reports []string, bad badObject) {
	t.Helper()
	got := s.sink.policy(bad.name)
	if (got != nil) != (bad.want != "") {
		t.Errorf("%s: in the sink: %v", bad.name, got != nil)
	}
	if got != nil {
		want := compiled(bad.name, bad.want)
		if !slices.Equal(got.Networks, want.Networks) || got.Pods.String() != want.Pods.String() ||
			!slices.EqualFunc(got.Sections[:], want.Sections[:], (*policy.Section).Equal) {
			t.Errorf("%s: got %+v, want %+v", bad.name, got, want)
		}
	}
	about := fmt.Sprintf("MultiNetworkPolicy ns/%s InvalidMultiNetworkPolicy: ", bad.name)
	matches := func(report string) bool { return strings.HasPrefix(report, about+bad.report) }
	if slices.ContainsFunc(reports, matches) != (bad.report != "") {
		t.Errorf("%s: reported %q, want %q", bad.name, reports, bad.report)
	}
}

// A mistake in an object is a problem of that object alone: lists and watches bring all other objects.
func TestBadObjects(t *testing.T) {
	for name, deliver := range map[string]func(t *testing.T, api *server, bad []string){
		"listed": func(t *testing.T, api *server, bad []string) {
			api.isOld = true
			api.serve(t, policies, "100", append(bad, object(policies, "good", 99))...)
		},
		"streamed": func(t *testing.T, api *server, bad []string) {
			api.serve(t, policies, "100", append(bad, object(policies, "good", 99))...)
		},
		"ADDED": func(t *testing.T, api *server, bad []string) {
			watch := api.serve(t, policies, "1")
			for _, o := range append(bad, object(policies, "good", 99)) {
				watch.send(event("ADDED", o))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newServer(t, policies)
				s := start(t, api.source(t))
				var bad []string
				for i, b := range badPolicies {
					bad = append(bad, b.object(b.name, i+2))
				}
				deliver(t, api, bad)
				synctest.Wait()
				if s.sink.policy("good") == nil {
					t.Error("the good policy is missing")
				}
				reports := s.events.take()
				for _, b := range badPolicies {
					checkPolicy(t, s, reports, b)
				}
				if lines := s.log.With("failed"); len(lines) > 0 {
					t.Errorf("logged %q", lines)
				}
			})
		})
	}
}

// An object that becomes undecodable stays in force as it was, also through the next list. The watch goes on from its
// version, so no deletion is missed.
func TestObjectBecomesBad(t *testing.T) {
	for _, bad := range badPolicies {
		t.Run(bad.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newServer(t, policies)
				s := start(t, api.source(t))
				watch := api.serve(t, policies, "1", object(policies, bad.name, 1, `"spec":{}`), object(policies, "other", 1))
				watch.send(event("MODIFIED", bad.object(bad.name, 7)))
				watch.end()
				next := api.next(t, policies)
				if from := next.query("resourceVersion"); !next.isWatch() || from != "7" {
					t.Errorf("asked for %s", next.r.URL)
				}
				if bad.want == "" {
					bad.want = "{}" // the version before
				}
				checkPolicy(t, s, s.events.take(), bad)

				next.cut()
				api.serve(t, policies, "9", bad.object(bad.name, 7))
				s.sink.becomes(t, fmt.Sprintf("policy ns/%s = [ns/net]", bad.name))
				bad.report = "" // reported before
				checkPolicy(t, s, s.events.take(), bad)
			})
		})
	}
}

// An item of a list that is no object at all is reported, and the other items are taken.
func TestListOfNoObjects(t *testing.T) {
	for _, item := range []string{"null", "{}", "5", `"text"`, "[]", `{"metadata":5}`, `{"metadata":{"name":5,"namespace":"ns"}}`} {
		t.Run(item, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newServer(t, policies, nads)
				api.isOld = true
				s := start(t, api.source(t))
				for _, resource := range []string{policies, nads} {
					api.serve(t, resource, "1", item, object(resource, "good", 1))
				}
				s.synced(t)
				s.sink.holds(t, "nad ns/good = ", "policy ns/good = [ns/net]")
				for _, kind := range []string{informers.KindPolicy, informers.KindNAD} {
					if lines := s.log.With(kind, "the object cannot be decoded"); len(lines) != 1 {
						t.Errorf("logged about a %s: %q", kind, lines)
					}
				}
			})
		})
	}
}

// A NetworkAttachmentDefinition that cannot be read has an unknown type, so policies isolate the network.
func TestBadNADs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(t, nads)
		s := start(t, api.source(t))
		watch := api.serve(t, nads, "1", object(nads, "a", 1, `"spec":5`), object(nads, "b", 1, `"spec":{"config":7}`), object(nads, "c", 1),
			object(nads, "d", 1, `"spec":{"config":"{\"type\":\"macvlan\"}"}`))
		s.sink.becomes(t, "nad ns/a = ", "nad ns/b = ", "nad ns/c = ", "nad ns/d = macvlan")
		watch.send(event("MODIFIED", object(nads, "d", 2, `"spec":[]`)))
		s.sink.becomes(t, "nad ns/a = ", "nad ns/b = ", "nad ns/c = ", "nad ns/d = ")
		synctest.Wait()
		reports := s.events.take()
		for i, name := range []string{"a", "b", "d"} {
			want := fmt.Sprintf("NetworkAttachmentDefinition ns/%s InvalidNetworkAttachmentDefinition: spec.config: ", name)
			if len(reports) != 3 || !strings.HasPrefix(reports[i], want) {
				t.Errorf("reported %q, want %s", reports, want)
			}
		}
	})
}
