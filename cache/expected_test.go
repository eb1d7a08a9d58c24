package cache

import (
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestExpectedEntries(t *testing.T) {
	for name, tc := range map[string]struct {
		raw      string
		want     string // entries, each "interface network", with commas between them
		problems int
		bad      bool
	}{
		"none":                       {raw: " "},
		"one name":                   {raw: "a", want: "net1 ns/a"},
		"names":                      {raw: "a, ops/b ,c", want: "net1 ns/a,net2 ops/b,net3 ns/c"},
		"the same twice":             {raw: "a,a", want: "net1 ns/a,net2 ns/a"},
		"names of interfaces":        {raw: "a@eth7,ops/b,c @ x0", want: "eth7 ns/a,net2 ops/b,x0 ns/c"},
		"a list":                     {raw: `[{"name":"a"},{"name":"b","namespace":"ops","interface":"x0"},{"name":"c","ips":["10.0.0.1/24"]}]`, want: "net1 ns/a,net3 ns/c,x0 ops/b"},
		"an older key":               {raw: `[{"name":"a","interfaceRequest":"x0"}]`, want: "x0 ns/a"},
		"an empty list":              {raw: "[]"},
		"one is no name, its place":  {raw: "a,,b", want: "net1 ns/a,net3 ns/b", problems: 1},
		"too many slashes":           {raw: "a/b/c,d", want: "net2 ns/d", problems: 1},
		"too many ats":               {raw: "a@b@c", want: "b@c ns/a"},
		"no interface's name":        {raw: "a@a-name-too-long-for-it,b@x/y", problems: 2},
		"an entry that is null":      {raw: `[null,{"name":"a"}]`, want: "net2 ns/a", problems: 1},
		"an entry without a name":    {raw: `[{"namespace":"ops"},{"name":"a"}]`, want: "net2 ns/a", problems: 1},
		"no list":                    {raw: `{"name":"a"}`, problems: 1, bad: true},
		"a list that is not closed":  {raw: `[{"name":"a"}`, problems: 1, bad: true},
		"a name in quotation marks":  {raw: `"a"`, problems: 1, bad: true},
		"something else in the list": {raw: `[1]`, problems: 1, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			var ps policy.Problems
			entries, ok := parseRequests(Pod{Key: Key{Namespace: "ns"}, Requested: tc.raw}, &ps)
			if ok == tc.bad || len(ps.List()) != tc.problems {
				t.Errorf("readable: %v, problems %v", ok, ps)
			}
			var got []string
			for _, e := range mergeEntries(entries) {
				got = append(got, e.iface+" "+e.network.String())
				if len(e.addrs) > 0 {
					t.Errorf("%s has addresses", e.iface)
				}
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, ",")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, p := range ps.List() {
				if p.Field != annotationField(NetworksAnnotation) {
					t.Errorf("problem %s", p)
				}
			}
		})
	}
}

// Requested interfaces are isolated whatever the status says, and so are the interfaces that the status adds.
func TestRequestedInterfaces(t *testing.T) {
	const isolated, open = "drop ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.2 tcp 80"
	webPolicy := model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}}`)
	asking := func(networks, status string) *corev1.Pod {
		p := model.SetNetworks(model.NewPod("web", "app=web"), networks)
		if status != "absent" {
			p.Annotations[StatusAnnotation] = status
		}
		return p
	}
	attached := func(iface string) string { return `[{"name": "net-a", "interface": "` + iface + `"}]` }
	type step struct {
		networks, status string
		problems         int
		want             []string // nil: no target
	}
	for name, steps := range map[string][]step{
		"no status":                      {{"net-a", "absent", 0, []string{isolated}}},
		"an empty status":                {{"net-a", "", 0, []string{isolated}}},
		"another interface":              {{"net-a@net7", "absent", 0, []string{open, "drop ingress net7 10.0.0.2 tcp 80"}}},
		"another network":                {{"net-b", "absent", 0, []string{open}}},
		"a broken status":                {{"net-a", "{", 1, []string{isolated}}},
		"nothing can be read":            {{"[", "{", 2, nil}},
		"broken, and asks for nothing":   {{"", "{", 1, nil}},
		"what it asks cannot be read":    {{"[", "absent", 1, nil}},
		"one of two can be read":         {{"net-a,b/c/d", "absent", 1, []string{isolated}}},
		"the status has another":         {{"net-a", attached("net2"), 0, []string{isolated, "drop ingress net2 10.0.0.2 tcp 80"}}},
		"the status lacks it":            {{"net-a", attached("eth0"), 0, []string{isolated}}},
		"the status names another":       {{"net-a", `[{"name": "net-b", "interface": "net1"}]`, 0, []string{isolated}}},
		"it asks for another network":    {{"net-b", attached("net1"), 0, []string{isolated}}},
		"the template's status is empty": {{"net-a", "[]", 0, []string{isolated}}},
		"hot plug":                       {{"", attached("eth0"), 0, []string{open}}, {"net-a", attached("eth0"), 0, []string{isolated}}},
		"hot unplug":                     {{"net-a", attached("net1"), 0, []string{isolated}}, {"", "[]", 0, []string{open}}},
		"the status breaks":              {{"net-b", attached("net1"), 0, []string{isolated}}, {"net-b", "{", 1, []string{isolated}}},
		"the status goes":                {{"net-b", attached("net1"), 0, []string{isolated}}, {"net-b", "absent", 0, []string{open}}},
		"what it asks breaks":            {{"net-a", attached("eth0"), 0, []string{isolated}}, {"[", attached("eth0"), 1, []string{isolated}}, {"", attached("eth0"), 0, []string{open}}},
		"it asks for another":            {{"net-b", "absent", 0, []string{open}}, {"net-a", "absent", 0, []string{isolated}}},
		"it breaks while it asks":        {{"net-a", "absent", 0, []string{isolated}}, {"net-a", "{", 1, []string{isolated}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webPolicy)
			for i, s := range steps {
				for range 2 {
					if ps := upsert(c, asking(s.networks, s.status)); len(ps) != s.problems {
						t.Errorf("step %d: problems %v", i, ps)
					}
				}
				if _, ok := targetOf(c, "web"); ok != (s.want != nil) {
					t.Errorf("step %d: a target: %v", i, ok)
				}
				wantPackets(t, c, "web", s.want...)
			}
		})
	}
}

// A pod that only asks is no peer, takes no memory on other nodes, and is not missed where it has not started.
func TestExpectedElsewhere(t *testing.T) {
	c := newCluster(t, model.WebPod(), model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {}}]}]}`))
	targetOf(c, "web")
	before := c.Stats()
	upsert(c, model.SetNetworks(model.NewPeer("far", ""), "net-a"))
	upsert(c, model.With(model.SetNetworks(model.NewPod("unscheduled", ""), "net-a"), func(p *corev1.Pod) { p.Spec.NodeName = "" }))
	if diff := cmp.Diff(before, c.Stats()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	wantDirty(t, c, "pods elsewhere")
	upsert(c, model.SetNetworks(model.NewPod("here", ""), "net-a"))
	wantDirty(t, c, "a pod that is to start here", "here")
	if got := c.Stats(); got.SelectedPods != 2 || got.WithoutSandbox != before.WithoutSandbox {
		t.Errorf("%+v", got)
	}
	wantPackets(t, c, "here", "drop ingress net1 10.0.0.2 tcp 80")
	c.DeletePod(model.KeyOf("here"))
	settle(c)
	targetOf(c, "web")
	if diff := cmp.Diff(before, c.Stats()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// A cache without a node reads pods of all nodes like local pods.
func TestRequestsOfAllNodes(t *testing.T) {
	o := testOptions()
	o.Node = ""
	c := New(o)
	upsert(c, model.NewPolicy("p", "net-a", `{}`))
	upsert(c, model.SetNetworks(model.NewPeer("far", ""), "net-a"))
	if ruleset(c, "far").IsEmpty() {
		t.Error("no table")
	}
}
