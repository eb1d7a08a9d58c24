package cache

import (
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bad input allows nothing, takes nothing else with it, and is named.
var badPolicies = []struct {
	name    string
	policy  string
	fields  []string // with a problem each
	packets []string
}{
	{
		"bad CIDR", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}, {ipBlock: {cidr: 10.2.0.0/16}}]}]}`,
		[]string{"spec.ingress[0].from[0].ipBlock.cidr"},
		[]string{"drop ingress net1 10.0.0.0 tcp 80", "pass ingress net1 10.2.0.1 tcp 80"},
	}, {
		"nothing but bad peers is nobody, not everybody", `{ingress: [{from: [{ipBlock: {cidr: 300.0.0.0/8}}]}, {ports: [{port: 81}]}]}`,
		[]string{"spec.ingress[0].from[0].ipBlock.cidr"},
		[]string{"drop ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.2 tcp 81"},
	}, {
		"an except that cannot be read takes its block with it, and no other",
		`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/33]}}, {ipBlock: {cidr: 10.2.0.0/16}}]}]}`,
		[]string{"spec.ingress[0].from[0].ipBlock.except[0]"},
		[]string{"drop ingress net1 10.3.0.1 tcp 80", "pass ingress net1 10.2.0.1 tcp 80"},
	}, {
		"an except outside of its block excludes nothing",
		`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.1.0.0/16, "fd00::/8"]}}]}]}`,
		[]string{"spec.ingress[0].from[0].ipBlock.except[0]", "spec.ingress[0].from[0].ipBlock.except[1]"},
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.1.0.2 tcp 80"},
	}, {
		"an except larger than its block", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.0.0/8]}}]}]}`,
		[]string{"spec.ingress[0].from[0].ipBlock.except[0]"},
		[]string{"drop ingress net1 10.0.0.2 tcp 80"},
	}, {
		"empty peer", `{egress: [{to: [{}, {ipBlock: {cidr: 10.2.0.0/16}}]}]}`,
		[]string{"spec.egress[0].to[0]"},
		[]string{"drop egress net1 10.0.0.2 tcp 80", "pass egress net1 10.2.0.1 tcp 80"},
	}, {
		"ipBlock and selector in one peer", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}`,
		[]string{"spec.ingress[0].from[0]"},
		[]string{"drop ingress net1 10.0.0.2 tcp 80"},
	}, {
		"bad selectors of a peer",
		`{ingress: [{from: [
{podSelector: {matchLabels: {"-": x}}, namespaceSelector: {}}, {namespaceSelector: {matchExpressions: [{key: a, operator: Like}]}},
{podSelector: {}, namespaceSelector: {matchLabels: {a: "b c"}}}, {ipBlock: {cidr: 10.2.0.0/16}}]}]}`,
		[]string{
			"spec.ingress[0].from[0].podSelector", "spec.ingress[0].from[1].namespaceSelector",
			"spec.ingress[0].from[2].namespaceSelector",
		},
		[]string{"drop ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.2.0.1 tcp 80"},
	}, {
		"a bad podSelector isolates every pod, and its rules count",
		`{podSelector: {matchExpressions: [{key: app, operator: In}]}, ingress: [{ports: [{port: 80}]}]}`,
		[]string{"spec.podSelector"},
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.2 tcp 81"},
	}, {
		"an unknown policyType isolates both ways",
		`{policyTypes: [Ingress, Egres], ingress: [{ports: [{port: 80}]}]}`,
		[]string{"spec.policyTypes[1]"},
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "drop egress net1 10.0.0.2 tcp 80"},
	}, {
		"bad ports, and a good one",
		`{ingress: [{ports: [
{protocol: ICMP}, {protocol: tcpp, port: 1}, {port: 0}, {port: 65536}, {port: -1}, {port: 80, endPort: 79}, {port: 80, endPort: 70000},
{port: http, endPort: 90}, {endPort: 90}, {port: "8 0"}, {port: ""}, {port: 82}]}]}`,
		[]string{
			"spec.ingress[0].ports[0].protocol", "spec.ingress[0].ports[1].protocol", "spec.ingress[0].ports[2].port",
			"spec.ingress[0].ports[3].port", "spec.ingress[0].ports[4].port", "spec.ingress[0].ports[5].endPort",
			"spec.ingress[0].ports[6].endPort", "spec.ingress[0].ports[7].endPort", "spec.ingress[0].ports[8].endPort",
			"spec.ingress[0].ports[9].port", "spec.ingress[0].ports[10].port",
		},
		[]string{
			"drop ingress net1 10.0.0.2 tcp 1", "drop ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.2 tcp 85",
			"pass ingress net1 10.0.0.2 tcp 82", "drop ingress net1 10.0.0.2 tcp 0", "drop ingress net1 10.0.0.2 tcp 65535",
		},
	}, {
		"nothing but bad ports is no port, not every port", `{ingress: [{ports: [{port: 0}]}], egress: [{ports: [{port: 70000}]}]}`,
		[]string{"spec.ingress[0].ports[0].port", "spec.egress[0].ports[0].port"},
		[]string{"drop ingress net1 10.0.0.2 tcp 80", "drop egress net1 10.0.0.2 tcp 80"},
	},
}

func TestBadPolicies(t *testing.T) {
	for _, tt := range badPolicies {
		t.Run(tt.name, func(t *testing.T) {
			other := model.NewPod("other", "app=other", "net1 net-a 10.0.0.7")
			c := newCluster(t, model.WebPod(), other, model.NewPolicy("good", "net-b", `{ingress: [{ports: [{port: 7}]}]}`))
			ps := upsert(c, model.NewPolicy("bad", "net-a", tt.policy))
			var fields []string
			for _, p := range ps {
				fields = append(fields, p.Field)
				if p.Message == "" || !strings.HasPrefix(p.String(), p.Field+": ") {
					t.Errorf("%+v", p)
				}
			}
			if diff := cmp.Diff(tt.fields, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s\n%v", diff, ps)
			}
			wantPackets(t, c, "web", tt.packets...)
			wantPackets(t, c, "web", "pass ingress net2 10.9.0.2 tcp 7", "drop ingress net2 10.9.0.2 tcp 8")
			if again := upsert(c, model.NewPolicy("bad", "net-a", tt.policy)); !cmp.Equal(ps, again) {
				t.Errorf("said again: %v, want %v", again, ps)
			}
			if ps := upsert(c, model.NewPolicy("bad", "net-a", `{}`)); len(ps) > 0 {
				t.Errorf("of a good policy: %v", ps)
			}
		})
	}
}

func TestPolicyFor(t *testing.T) {
	tests := []struct {
		name, value string
		networks    []string
		problems    int
	}{
		{"one", "net-a", []string{"default/net-a"}, 0},
		{"several, with blanks and repeats", " net-b ,ops / net-a,default/net-b", []string{"default/net-b", "ops/net-a"}, 0},
		{"empty", "", nil, 2},
		{"empty entries", "net-a,,", []string{"default/net-a"}, 2},
		{"malformed entries", "a/b/c,/x,x/,a b,net@net1,net-a", []string{"default/net-a"}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(model.NewPolicy("p", tt.value, `{}`))
			var got []string
			for _, k := range p.Networks {
				got = append(got, k.String())
			}
			if diff := cmp.Diff(tt.networks, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(p.Problems) != tt.problems {
				t.Errorf("%d problems, want %d: %v", len(p.Problems), tt.problems, p.Problems)
			}
			for _, problem := range p.Problems {
				if problem.Field != policy.ForField {
					t.Errorf("field %s", problem.Field)
				}
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		c := newCluster(t, model.WebPod())
		p := model.NewPolicy("p", "", `{}`)
		p.Annotations = nil
		if ps := upsert(c, p); len(ps) != 1 || ps[0].Field != policy.ForField {
			t.Errorf("problems: %v", ps)
		}
		if !ruleset(c, "web").IsEmpty() {
			t.Error("a policy without networks selects")
		}
		wantDirty(t, c, "a policy without networks")
	})
}

func TestBadStatus(t *testing.T) {
	const field = "metadata.annotations[k8s.v1.cni.cncf.io/network-status]"
	policy := model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}`)
	client := model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2")

	t.Run("a bad address, interface or network contributes nothing, the rest counts", func(t *testing.T) {
		c := newCluster(t, policy, model.WebPod())
		ps := upsert(c, model.NewPeer("client", "app=client", "net1 net-a 10.0.0.2 10.0.0.300 fd00::2%eth0 ::ffff:10.0.0.3",
			"a-name-too-long-for-it net-a 10.0.0.4", "net2 a/b/c 10.0.0.5"))
		if len(ps) != 3 || ps[0].Field != field || !strings.Contains(ps[0].Message, "10.0.0.300") {
			t.Errorf("problems: %v", ps)
		}
		wantPackets(t, c, "web", "pass ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.3 tcp 80",
			"pass ingress net1 fd00::2 tcp 80", "drop ingress net1 10.0.0.4 tcp 80", "drop ingress net1 10.0.0.5 tcp 80")
	})
	t.Run("unreadable", func(t *testing.T) {
		c := newCluster(t, policy, client, model.WebPod())
		targetOf(c, "web")
		for _, o := range []metav1.Object{client, model.WebPod()} {
			o.SetAnnotations(map[string]string{StatusAnnotation: "{"})
			for range 2 {
				if ps := upsert(c, o); len(ps) != 1 || ps[0].Field != field {
					t.Errorf("problems: %v", ps)
				}
			}
		}
		wantDirty(t, c, "a status that cannot be read", "web")
		wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.3 tcp 80")
	})
	t.Run("unreadable from the start, or for another pod of the name", func(t *testing.T) {
		c := newCluster(t, policy, model.WebPod())
		bad := model.WebPod()
		bad.UID = "another"
		bad.Annotations[StatusAnnotation] = "nonsense"
		if ps := upsert(c, bad); len(ps) != 1 {
			t.Errorf("problems: %v", ps)
		}
		wantDirty(t, c, "another pod", "web", "web")
		if _, ok := targetOf(c, "web"); ok {
			t.Error("a pod whose interfaces are not known is a target: what is in force would be lost")
		}
		good := model.WebPod()
		good.UID = bad.UID
		upsert(c, good)
		wantDirty(t, c, "a status that can be read", "web")
		wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 80")
	})
	t.Run("older key", func(t *testing.T) {
		p := model.WebPod()
		p.Annotations = map[string]string{LegacyStatusAnnotation: p.Annotations[StatusAnnotation]}
		wantPackets(t, newCluster(t, policy, p), "web", "drop ingress net1 10.0.0.2 tcp 80")
	})
}

func TestStatusOfOneInterfaceInPieces(t *testing.T) {
	raw := `[{"name": "net-b", "interface": "net1", "ips": ["10.0.0.2"]}, {"name": "net-a", "interface": "net1", "ips": ["fd00::1"], "dns": {}},
{"name": "default/net-a", "interface": "net1", "ips": ["10.0.0.1", "10.0.0.1"]}, {"name": "", "interface": "eth0", "default": true},
{"name": "net-c", "ips": ["10.0.0.3"]}, null]`
	var ps policy.Problems
	got, ok := parseStatus(Pod{Key: Key{Namespace: "default"}, Status: raw}, &ps)
	got = mergeEntries(got)
	if !ok || len(ps.List()) > 0 {
		t.Fatal(ok, ps)
	}
	var lines []string
	for _, e := range got {
		line := e.iface + " " + e.network.String()
		for _, a := range e.addrs {
			line += " " + a.String()
		}
		lines = append(lines, line)
	}
	want := []string{"net1 default/net-a 10.0.0.1 fd00::1", "net1 default/net-b 10.0.0.2"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
