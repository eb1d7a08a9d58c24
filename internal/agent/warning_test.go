package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

const policyForField = "metadata.annotations[k8s.v1.cni.cncf.io/policy-for]"

// badPolicies are specs, in which the networks are a bad "for", and the fields that the Warning Events name.
var badPolicies = []struct {
	name, networks, spec string
	fields               []string
}{
	{"cidr", "net", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}`, []string{"spec.ingress[0].from[0].ipBlock.cidr"}},
	{"except-outside", "net", `{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.1.0.0/24]}}]}]}`, []string{"spec.egress[0].to[0].ipBlock.except[0]"}},
	{"except-bad", "net", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [x]}}]}]}`, []string{"spec.ingress[0].from[0].ipBlock.except[0]"}},
	{"protocol", "net", `{ingress: [{ports: [{protocol: ICMP, port: 80}]}]}`, []string{"spec.ingress[0].ports[0].protocol"}},
	{"port-0", "net", `{ingress: [{ports: [{port: 0}]}]}`, []string{"spec.ingress[0].ports[0].port"}},
	{"port-70000", "net", `{egress: [{ports: [{port: 80}, {port: 70000}]}]}`, []string{"spec.egress[0].ports[1].port"}},
	{"end-below", "net", `{ingress: [{ports: [{port: 80, endPort: 79}]}]}`, []string{"spec.ingress[0].ports[0].endPort"}},
	{"end-named", "net", `{ingress: [{ports: [{port: http, endPort: 90}]}]}`, []string{"spec.ingress[0].ports[0].endPort"}},
	{"selector", "net", `{ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: Like}]}}]}]}`, []string{"spec.ingress[0].from[0].podSelector"}},
	{"namespaces", "net", `{ingress: [{from: [{namespaceSelector: {matchLabels: {a: "b c"}}}]}]}`, []string{"spec.ingress[0].from[0].namespaceSelector"}},
	{"two", "net", `{ingress: [{from: [{}], ports: [{port: -1}]}]}`, []string{"spec.ingress[0].from[0]", "spec.ingress[0].ports[0].port"}},
	{"for-empty", "", `{}`, []string{policyForField, policyForField}}, // the empty name, and that there is no other
	{"for-bad", "a/b/c,net", `{}`, []string{policyForField}},
	// Merged, and nothing to warn of.
	{"overlap", "net", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.1.0.0/16}}, {ipBlock: {cidr: 10.0.0.0/8}}]}]}`, nil},
}

const badObjects = `
---
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: ns, name: bad-net, uid: bad-net}, spec: {config: '{'}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: bad-pod, uid: bad-pod, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": 1}]'}}, spec: {nodeName: here}, status: {phase: Running}}
`

// badWorld is all of them, on a pod with no connection to the probed pod. The generation makes all objects
// others, which mean the same.
func badWorld(generation int) string {
	world := node.Cluster + strings.Replace(node.Policy, ", {ipBlock: {cidr: 10.9.0.0/33}}", "", 1) + badObjects
	for _, b := range badPolicies {
		world += fmt.Sprintf(`
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: elsewhere, name: %s, uid: %s, labels: {generation: "%d"},
  annotations: {k8s.v1.cni.cncf.io/policy-for: %q}}, spec: %s}
`, b.name, b.name, generation, b.networks, b.spec)
	}
	return world
}

// Each invalid field is a Warning Event on its object, once, and disturbs nothing else.
func TestWarnings(t *testing.T) {
	r := newRig(t)
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	r.Runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(r.Hosts["server"])),
	})
	r.Load(badWorld(1))
	r.start()
	r.Becomes("enforced beside what is invalid", true, false)
	want := map[string]int{
		"Pod bad-pod metadata.annotations[k8s.v1.cni.cncf.io/network-status]": 1,
		"NetworkAttachmentDefinition bad-net spec.config":                     1,
	}
	total := len(want)
	for _, b := range badPolicies {
		for _, field := range b.fields {
			want["MultiNetworkPolicy "+b.name+" "+field]++
			total++
		}
	}
	await.That(t, "all Events", func() bool { return len(r.API.Events()) >= total })
	r.Load(badWorld(2))
	r.Stays("enforced after a change", true, false)
	got := map[string]int{}
	for _, e := range r.API.Events() {
		field, _, _ := strings.Cut(e.Message, ": ")
		got[e.InvolvedObject.Kind+" "+e.InvolvedObject.Name+" "+field]++
		if e.Type != corev1.EventTypeWarning || string(e.InvolvedObject.UID) != e.InvolvedObject.Name {
			t.Errorf("%+v", e)
		}
	}
	for what, n := range want {
		if got[what] != n {
			t.Errorf("%d Events of %s, want %d", got[what], what, n)
		}
		delete(got, what)
	}
	for what, n := range got {
		t.Errorf("%d Events of %s, want none", n, what)
	}
}

// A name that no pod has is told once, when it has been so for a while.
func TestShortfalls(t *testing.T) {
	r := newRig(t)
	world := func(port, spec string) string {
		return strings.Replace(node.Cluster, "spec: {nodeName: here}", "spec: {nodeName: here, containers: [{name: c, ports: [{containerPort: 80, name: "+port+"}]}]}", 1) +
			strings.Replace(strings.Replace(node.Policy, ", {ipBlock: {cidr: 10.9.0.0/33}}", "", 1), "}}}]}]}}", "}}}], ports: [{port: http}]}]"+spec+"}}", 1)
	}
	if !strings.Contains(world("web", ""), "ports: [{port: http}]") {
		t.Fatal("the policy is another one")
	}
	r.Load(world("web", ", egress: [{to: [{podSelector: {}}], ports: [{port: web}, {port: sql}]}]"))
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), testr.New(t)))
	defer cancel()
	state := cache.New(cache.Options{Node: node.Name, NetworkPlugins: cache.DefaultNetworkPlugins()})
	plan := func() { // as the workers do
		for _, id := range state.TakeDirty() {
			state.Plan(id)
		}
	}
	settings := informers.Settings{Node: node.Name, Limits: state.Limits()}
	in := informers.New(ctx, informers.Config{Source: r.Files.Source(settings), Sink: state, Settings: settings, Notify: plan})
	in.Start(ctx)
	events := func() (texts []string) {
		for _, e := range r.API.Events() {
			if e.Reason == "UnresolvedNamedPort" && e.InvolvedObject.Name == "p" {
				texts = append(texts, e.Message)
			}
		}
		return texts
	}
	client, err := informers.NewCore(r.API.Config())
	if err != nil {
		t.Fatal(err)
	}
	sink := informers.NewEvents(client, "here")
	go sink.Run(ctx)
	go informers.ReportShortfalls(ctx, sink, state.Shortfalls, 20*time.Millisecond)
	await.That(t, "two Events", func() bool { return len(events()) == 2 })
	time.Sleep(200 * time.Millisecond)
	all := strings.Join(events(), "\n")
	for _, want := range []string{
		`spec.ingress[0].ports: no pod on this node that the policy isolates has a port "http" of tcp`,
		`spec.egress[0].ports: no peer of the rule has a port "sql" of tcp`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("not said: %s", want)
		}
	}
	if n := len(events()); n != 2 {
		t.Errorf("%d Events:\n%s", n, all)
	}
	r.Load(world("http", ""))
	await.That(t, "all names are resolved", func() bool { return len(state.Shortfalls()) == 0 })
}
