package cache

import (
	"slices"
	"sync"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

const fromClients = `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}`

// dirtyCluster has two local pods that a policy selects and one local pod that no policy selects.
func dirtyCluster(t *testing.T) *Cache {
	c := newCluster(t, model.NewNamespace("default", ""), model.NewNamespace("ops", "team=ops"),
		model.WebPod(), model.NewPod("web-2", "app=web", "net1 net-a 10.0.0.11"), model.NewPod("db", "app=db", "net1 net-a 10.0.0.12"),
		model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2", "net9 net-z 10.7.0.2"),
		model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}},
{namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {app: prom}}}]}]}`))
	for _, k := range []string{"web", "web-2", "db"} {
		targetOf(c, k)
	}
	wantDirty(t, c, "nothing")
	return c
}

// Each event marks the pods whose Target it changes and no others.
func TestDirty(t *testing.T) {
	tests := []struct {
		name  string
		event func(*Cache)
		dirty []string
	}{
		{"a peer comes", func(c *Cache) { upsert(c, model.NewPeer("c-2", "app=client", "net1 net-a 10.0.0.3")) }, []string{"web", "web-2"}},
		{"a peer goes", func(c *Cache) { c.DeletePod(model.KeyOf("client")) }, []string{"web", "web-2"}},
		{"a peer has another address", func(c *Cache) { upsert(c, model.NewPeer("client", "app=client", "net1 net-a 10.0.0.4")) }, []string{"web", "web-2"}},
		{"a peer is relabeled", func(c *Cache) { upsert(c, model.NewPeer("client", "app=x", "net1 net-a 10.0.0.2")) }, []string{"web", "web-2"}},
		{"a peer has another label and still matches", func(c *Cache) {
			upsert(c, model.NewPeer("client", "app=client v=2", "net1 net-a 10.0.0.2", "net9 net-z 10.7.0.2"))
		}, nil},
		{"a peer's address on another network", func(c *Cache) {
			upsert(c, model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2", "net9 net-z 10.7.0.3"))
		}, nil},
		{"a second pod has the peer's address", func(c *Cache) { upsert(c, model.NewPeer("c-2", "app=client", "net1 net-a 10.0.0.2")) }, []string{"web", "web-2"}}, // nobody looks yet whether the address is new
		{"no peer comes", func(c *Cache) { upsert(c, model.NewPeer("x", "app=x", "net1 net-a 10.0.0.3")) }, nil},
		{"a peer that only a namespaceSelector selects", func(c *Cache) {
			upsert(c, model.NewPeer("ops/prom", "app=prom", "net1 default/net-a 10.0.0.3"))
		}, []string{"web", "web-2"}},
		{"the same again", func(c *Cache) { upsert(c, model.WebPod()); upsert(c, model.NewNamespace("ops", "team=ops")) }, nil},
		{"a namespace without pods", func(c *Cache) { upsert(c, model.NewNamespace("x", "team=ops")); c.DeleteNamespace("x") }, nil},
		{"a policy that selects nobody", func(c *Cache) { upsert(c, model.NewPolicy("q", "net-z", `{}`)) }, nil},
		{"a policy for one", func(c *Cache) {
			upsert(c, model.NewPolicy("q", "net-a", `{podSelector: {matchLabels: {app: db}}}`))
		}, []string{"db"}},
		{"the policy goes", func(c *Cache) { c.DeletePolicy(model.KeyOf("p")) }, []string{"web", "web-2"}},
		{"the policy selects others", func(c *Cache) {
			upsert(c, model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: db}}}`))
		}, []string{"db", "web", "web-2"}},
		{"a pod is relabeled into a policy", func(c *Cache) { upsert(c, model.NewPod("db", "app=web", "net1 net-a 10.0.0.12")) }, []string{"db"}},
		{"a pod has another label", func(c *Cache) { upsert(c, model.NewPod("db", "app=db v=2", "net1 net-a 10.0.0.12")) }, nil},
		{"a pod has another address", func(c *Cache) { upsert(c, model.NewPod("web-2", "app=web", "net1 net-a 10.0.0.13")) }, nil},
		{"an interface is added to a running pod", func(c *Cache) {
			upsert(c, model.NewPod("web-2", "app=web", "net1 net-a 10.0.0.11", "net2 net-a 10.0.0.14"))
		}, []string{"web-2"}},
		{"a pod ends", func(c *Cache) {
			upsert(c, model.With(model.WebPod(), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }))
		}, []string{"web"}},
		{"a pod goes that nobody selects", func(c *Cache) { c.DeletePod(model.KeyOf("db")) }, []string{"db"}},
		{"a pod is another one", func(c *Cache) {
			upsert(c, model.With(model.WebPod(), func(p *corev1.Pod) { p.UID = "x" }))
		}, []string{"web", "web"}},
		{"a pod comes", func(c *Cache) { upsert(c, model.NewPod("new", "")) }, []string{"new"}},
		{"a pod of another node comes", func(c *Cache) { upsert(c, model.NewPeer("new", "app=web", "net1 net-a 10.0.0.99")) }, nil},
		{"a port that no policy names", func(c *Cache) {
			upsert(c, model.WithPorts(model.NewPod("web-2", "app=web", "net1 net-a 10.0.0.11"), "http=80/TCP"))
		}, nil},
		{"a port that a policy names, in three versions", func(c *Cache) {
			upsert(c, model.NewPolicy("q", "net-a", `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: http}]}]}`))
			for _, port := range []string{"http=80/TCP", "http=81/TCP", "http=82/TCP"} {
				targetOf(c, "db")
				c.TakeDirty()
				upsert(c, model.WithPorts(model.NewPod("db", "app=db", "net1 net-a 10.0.0.12"), port))
				wantPackets(t, c, "db", "pass ingress net1 10.0.0.2 tcp "+port[5:7], "drop ingress net1 10.0.0.2 tcp 79")
			}
		}, []string{"db"}},
		{"a sandbox", func(c *Cache) { c.SetSandbox("uid-db", Sandbox{ID: "1"}) }, []string{"db"}},
		{"no sandbox", func(c *Cache) { c.SetSandbox("uid-none", Sandbox{ID: "1"}); c.DeleteSandbox("uid-x") }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dirtyCluster(t)
			tt.event(c)
			wantDirty(t, c, tt.name, tt.dirty...)
			wantDirty(t, c, "a second call")
		})
	}
}

func TestNamespaceRelabel(t *testing.T) {
	c := dirtyCluster(t)
	upsert(c, model.NewPeer("dev/prom", "app=prom", "net1 default/net-a 10.0.0.5"))
	wantDirty(t, c, "a pod of a namespace that is not known")
	upsert(c, model.NewNamespace("dev", "team=dev"))
	wantDirty(t, c, "a namespace that is not selected")
	upsert(c, model.NewNamespace("dev", "team=ops"))
	wantDirty(t, c, "a namespace that is", "web", "web-2")
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.5 tcp 80")
	upsert(c, model.NewNamespace("dev", "team=ops x=y"))
	wantDirty(t, c, "a label that nobody asks for")
	upsert(c, model.NewPolicy("p", "net-a", `{ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}]}]}`))
	upsert(c, model.NewPeer("plain/prom", "", "net1 default/net-a 10.0.0.6"))
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.6 tcp 80")
	settle(c)
	upsert(c, model.NewNamespace("plain", ""))
	wantDirty(t, c, "a namespace without labels", "db", "web", "web-2")
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.6 tcp 80")
	c.DeleteNamespace("plain")
	wantDirty(t, c, "the end of a namespace", "db", "web", "web-2")
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.6 tcp 80")
	upsert(c, model.NewPolicy("p", "net-a", `{ingress: [{from: [{namespaceSelector: {}}]}]}`))
	ruleset(c, "web")
	upsert(c, model.NewPeer("unknown/prom", "", "net1 default/net-a 10.0.0.7"))
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.7 tcp 80") // no Namespace object is needed where all are selected
}

func TestSandbox(t *testing.T) {
	c := New(testOptions())
	s := Sandbox{ID: "1", NetNS: "/run/netns/1"}
	c.SetSandbox("uid-web", s)
	upsert(c, model.WebPod())
	wantDirty(t, c, "a pod", "web")
	got, ok := targetOf(c, "web")
	if !ok || got.Sandbox != s || got.Pod.UID != "uid-web" || got.Pod.Key != model.KeyOf("web") || !got.Tables[engine.Inet].IsEmpty() {
		t.Errorf("target: %+v, %v", got, ok)
	}
	c.SetSandbox("uid-web", s)
	wantDirty(t, c, "the same sandbox")
	c.SetSandbox("uid-web", Sandbox{ID: "2"})
	wantDirty(t, c, "another sandbox", "web")
	c.DeleteSandbox("uid-web")
	wantDirty(t, c, "no sandbox", "web")
	if got, ok := targetOf(c, "web"); !ok || got.Sandbox != (Sandbox{}) {
		t.Errorf("target: %+v, %v", got, ok)
	}
}

// Who is a target.
func TestTargets(t *testing.T) {
	tests := []struct {
		name   string
		change func(*corev1.Pod)
		want   bool
	}{
		{"local", func(*corev1.Pod) {}, true},
		{"pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, true},
		{"without interfaces", func(p *corev1.Pod) { p.Annotations = nil }, true},
		{"not scheduled", func(p *corev1.Pod) { p.Spec.NodeName = "" }, false},
		{"of another node", func(p *corev1.Pod) { p.Spec.NodeName = "node-2" }, false},
		{"on the host's network", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		{"succeeded", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		{"failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, model.NewPolicy("p", "net-a", `{}`), model.With(model.WebPod(), tt.change))
			if _, ok := targetOf(c, "web"); ok != tt.want {
				t.Errorf("target: %v, want %v", ok, tt.want)
			}
			upsert(c, model.WebPod())
			upsert(c, model.With(model.WebPod(), tt.change))
			if _, ok := targetOf(c, "web"); ok != tt.want {
				t.Errorf("target, after it was another: %v, want %v", ok, tt.want)
			}
		})
	}
}

// A pod that no policy selects (any more, while nobody looked) is reported once, so that what is left in it can go.
func TestPodWithoutPolicyIsReported(t *testing.T) {
	c := New(testOptions())
	upsert(c, model.WebPod())
	wantDirty(t, c, "the first sight of a pod", "web")
	if got, ok := targetOf(c, "web"); !ok || !got.Tables[engine.Inet].IsEmpty() {
		t.Errorf("target: %+v, %v", got, ok)
	}
}

// pointers are what two rulesets share, by name.
func pointers(rs engine.Ruleset) map[string]any {
	out := map[string]any{}
	for _, s := range rs.Sets {
		out[s.Name] = s
	}
	for _, c := range rs.Chains {
		out[c.Name] = c
	}
	return out
}

// changed returns the names of the sets and chains of which b has another version, sorted.
func changed(a, b engine.Ruleset) []string {
	var out []string
	before := pointers(a)
	for name, p := range pointers(b) {
		if before[name] != p {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// A version of a set or chain is made when it changes, and only then; pods share them.
func TestSharing(t *testing.T) {
	c := newCluster(t, model.WebPod(), model.WithPorts(model.NewPod("web-2", "app=web", "net1 net-a 10.0.0.11"), "http=8080/TCP"),
		model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2"),
		model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}], egress: [{ports: [{port: 80}]}]}`),
		model.NewPolicy("q", "net-a", `{ingress: [{ports: [{port: http}, {port: 80}]}]}`))
	chain := func(key string, d engine.Direction) string {
		return compile(model.NewPolicy(key, "net-a", `{egress: [{}]}`)).Sections[d].ChainName
	}
	first := ruleset(c, "web")
	if got := changed(first, ruleset(c, "web")); got != nil {
		t.Errorf("changed by nothing: %v", got)
	}
	// The base and interface chains of each pod, and the chain and the ports that a named port makes its own.
	q := compile(model.NewPolicy("q", "net-a", `{ingress: [{ports: [{port: 80}, {port: 8080}]}]}`))
	ports := q.Sections[engine.Ingress].Build(nil, policy.BuildOptions{}).Ports[0].Name()
	own := []string{"egress-net1", "ingress-net1", "prerouting", "forward", "output", ports}
	own = slices.Sorted(slices.Values(append(own, chain("q", engine.Ingress))))
	if got := changed(first, ruleset(c, "web-2")); !slices.Equal(got, own) {
		t.Errorf("not shared with another pod: %v, want %v", got, own)
	}

	group := c.policies[model.KeyOf("p")].sections[engine.Ingress].Rules[0].Peers.Name()
	upsert(c, model.NewPeer("client-2", "app=client", "net1 net-a 10.0.0.9"))
	second := ruleset(c, "web")
	if got, want := changed(first, second), []string{group + "-v4"}; !slices.Equal(got, want) {
		t.Errorf("changed by a member: %v, want %v", got, want)
	}
	upsert(c, model.WithPorts(model.WebPod(), "more=1/TCP"))
	upsert(c, model.WebPod())
	upsert(c, model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}], egress: [{}]}`))
	third := ruleset(c, "web")
	if got, want := changed(second, third), []string{"egress-net1", chain("p", engine.Egress)}; !slices.Equal(got, want) {
		t.Errorf("changed by a policy that has no list of ports any more: %v, want %v", got, want)
	}
	upsert(c, model.NewPolicy("r", "net-b", `{}`))
	want := []string{"ingress-net2", chain("r", engine.Ingress), "prerouting"}
	slices.Sort(want)
	if got := changed(third, ruleset(c, "web")); !slices.Equal(got, want) {
		t.Errorf("changed by a policy for another interface: %v, want %v", got, want)
	}
}

// Groups that nobody local uses cost nothing: they do not exist.
func TestLazyGroups(t *testing.T) {
	c := newCluster(t, model.NewPolicy("p", "net-a", fromClients), model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2"), model.WebPod())
	if len(c.groups) != 0 {
		t.Error("a group before anybody asked")
	}
	targetOf(c, "web")
	if len(c.groups) != 1 {
		t.Errorf("%d groups, want 1", len(c.groups))
	}
	c.DeletePod(model.KeyOf("web"))
	settle(c)
	if len(c.groups) != 0 || len(c.scopes) != 0 || len(c.pods[model.KeyOf("client")].groups) != 0 {
		t.Error("a group after its last user has gone")
	}
}

func TestConcurrentUse(t *testing.T) {
	c := New(testOptions())
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			w := model.NewWorld(seed)
			for range 200 {
				if o := w.Object(); w.IntN(3) == 0 {
					remove(c, o)
				} else {
					upsert(c, o)
				}
				c.SetSandbox("1", Sandbox{ID: "1"})
				for _, k := range c.TakeDirty() {
					target, _ := c.Plan(k)
					render(t, target.Tables[engine.Inet])
				}
			}
		})
	}
	wg.Wait()
}

// What is given to the cache is not kept and not changed.
func TestInputsAreCopied(t *testing.T) {
	pod, ns, policy := model.WebPod(), model.NewNamespace("default", "a=b"), model.NewPolicy("p", "net-a", fromClients)
	c := newCluster(t, pod, ns, policy)
	want := renderPod(t, c, "web")
	pod.Labels["app"] = "x"
	pod.Annotations[StatusAnnotation] = "[]"
	pod.Spec.Containers[0].Ports[0].Name = "x"
	ns.Labels["a"] = "c"
	policy.Spec.Ingress[0].From[0].PodSelector.MatchLabels["app"] = "x"
	policy.Annotations = nil
	upsert(c, model.NewPeer("client", "app=client", "net1 net-z 10.0.0.2"))
	if got := renderPod(t, c, "web"); got != want {
		t.Errorf("table: %s, want %s", got, want)
	}
}
