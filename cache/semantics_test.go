package cache

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// What the words mean: each case is a cluster with the pod default/web (app=web, 10.0.0.1 on net1 of net-a), policies,
// and packets that pass or not.
var semantics = []struct {
	name    string
	objects []metav1.Object
	packets []string
}{
	{
		"no policy, no table",
		nil,
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "pass egress net1 10.0.0.2 tcp 80"},
	}, {
		"an empty policy isolates one way, on the policy's networks",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{}`)},
		[]string{
			"drop ingress net1 10.0.0.2 tcp 80", "drop ingress net1 fd00::2 udp 53", "pass egress net1 10.0.0.2 tcp 80",
			"pass ingress net2 10.0.0.2 tcp 80", "pass ingress lo 127.0.0.1 tcp 80", "pass ingress eth0 10.0.0.2 tcp 80",
			"drop ingress net1 10.0.0.2 icmp", "pass ingress net1 10.0.0.2 tcp 80 established",
		},
	}, {
		"egress rules isolate egress too",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{egress: [{to: [{ipBlock: {cidr: 10.0.0.2/32}}]}]}`)},
		[]string{"drop ingress net1 10.0.0.2 tcp 80", "pass egress net1 10.0.0.2 tcp 80", "drop egress net1 10.0.0.3 tcp 80"},
	}, {
		"policyTypes decide: rules of the other direction mean nothing",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{policyTypes: [Egress], ingress: [{from: [{podSelector: {}}]}]}`)},
		[]string{"pass ingress net1 10.0.0.9 tcp 80", "drop egress net1 10.0.0.2 tcp 80"},
	}, {
		"another namespace's policy, another label, another network: not selected",
		[]metav1.Object{
			model.NewPolicy("other/p", "default/net-a", `{}`),
			model.NewPolicy("q", "net-a", `{podSelector: {matchLabels: {app: db}}}`),
			model.NewPolicy("r", "net-c", `{}`), model.NewPolicy("s", "other/net-a", `{}`),
		},
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "pass ingress net2 10.0.0.2 tcp 80"},
	}, {
		"policy-for with spaces, namespaces and several networks",
		[]metav1.Object{model.NewPolicy("p", " default/net-a , net-b", `{}`)},
		[]string{"drop ingress net1 10.0.0.2 tcp 80", "drop ingress net2 10.0.0.2 tcp 80"},
	}, {
		"the cluster's own network, if it is named",
		[]metav1.Object{model.NewPolicy("p", "cluster-net", `{}`)},
		[]string{"drop ingress eth0 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.2 tcp 80"},
	}, {
		"policies add up",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [{ports: [{port: 80}]}]}`),
			model.NewPolicy("q", "net-a", `{ingress: [{ports: [{port: 81}]}]}`),
		},
		[]string{
			"pass ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.2 tcp 81", "drop ingress net1 10.0.0.2 tcp 82",
		},
	}, {
		"from absent or empty is everyone",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{ingress: [{from: [], ports: [{port: 80}]}], egress: [{}]}`)},
		[]string{
			"pass ingress net1 10.9.9.9 tcp 80", "pass ingress net1 fd09::9 tcp 80", "drop ingress net1 10.9.9.9 tcp 81",
			"pass egress net1 10.9.9.9 icmp", "pass egress net1 fd09::9 sctp 1",
		},
	}, {
		"peers that resolve to nothing are nobody",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}`)},
		[]string{"drop ingress net1 10.0.0.2 tcp 80"},
	}, {
		"podSelector alone: the policy's namespace",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}`),
			model.NewPeer("in", "app=client", "net1 net-a 10.0.0.2"), model.NewPeer("db", "app=db", "net1 net-a 10.0.0.3"),
			model.NewPeer("ops/out", "app=client", "net1 default/net-a 10.0.0.4"),
		},
		[]string{
			"pass ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.3 tcp 80", "drop ingress net1 10.0.0.4 tcp 80",
		},
	}, {
		"namespaceSelector alone, and both",
		[]metav1.Object{
			model.NewNamespace("ops", "team=ops"), model.NewNamespace("dev", "team=dev"),
			model.NewPolicy("p", "net-a", `
ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}]
egress: [{to: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [x, v]}]}}]}]`),
			model.NewPeer("ops/x", "app=x", "net1 default/net-a 10.0.0.2"), model.NewPeer("ops/z", "app=z", "net1 default/net-a 10.0.0.3"),
			model.NewPeer("dev/y", "app=v", "net1 default/net-a 10.0.0.4"), model.NewPeer("dev/z", "app=z", "net1 default/net-a 10.0.0.5"),
		},
		[]string{
			"pass ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.3 tcp 80", "drop ingress net1 10.0.0.4 tcp 80",
			"pass egress net1 10.0.0.2 tcp 80", "drop egress net1 10.0.0.3 tcp 80", "pass egress net1 10.0.0.4 tcp 80",
			"drop egress net1 10.0.0.5 tcp 80",
		},
	}, {
		"labels of a namespace that is not known match no selector, not even one that excludes",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [dev]}]}}]}]}`),
			model.NewPeer("dev/x", "", "net1 default/net-a 10.0.0.2"),
		},
		[]string{"drop ingress net1 10.0.0.2 tcp 80"},
	}, {
		"peers count with their addresses on any of the policy's networks and on no other",
		[]metav1.Object{
			model.NewPolicy("p", "net-a, net-b", `{ingress: [{from: [{podSelector: {}}]}]}`),
			model.NewPeer("x", "", "net1 net-a 10.0.0.2 fd00::2", "net2 net-b 10.9.0.2", "net3 net-c 10.0.0.3"),
		},
		[]string{
			"pass ingress net1 10.9.0.2 tcp 80", "pass ingress net2 10.0.0.2 tcp 80", "pass ingress net2 fd00::2 udp 1",
			"drop ingress net1 10.0.0.3 tcp 80",
		},
	}, {
		"pods on the host's network and terminated pods are no peers; pending and leaving ones are",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {}}]}]}`),
			model.With(model.NewPeer("host", "", "net1 net-a 10.0.0.2"), func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
			model.With(model.NewPeer("done", "", "net1 net-a 10.0.0.3"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
			model.With(model.NewPeer("fail", "", "net1 net-a 10.0.0.4"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			model.With(model.NewPeer("wait", "", "net1 net-a 10.0.0.5"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
			model.With(model.NewPeer("leave", "", "net1 net-a 10.0.0.6"), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }),
		},
		[]string{
			"drop ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.3 tcp 80", "drop ingress net1 10.0.0.4 tcp 80",
			"pass ingress net1 10.0.0.5 tcp 80", "pass ingress net1 10.0.0.6 tcp 80",
		},
	}, {
		"an except belongs to its own block",
		[]metav1.Object{model.NewPolicy("p", "net-a", `
ingress:
- from:
  - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}
  - ipBlock: {cidr: 10.1.2.0/24, except: [10.1.2.3/32]}
  - ipBlock: {cidr: "fd00::/16", except: ["fd00:1::/32"]}`)},
		[]string{
			"pass ingress net1 10.0.0.9 tcp 80", "drop ingress net1 10.1.0.9 tcp 80", "drop ingress net1 10.2.0.9 tcp 80",
			"pass ingress net1 10.1.2.4 tcp 80", "drop ingress net1 10.1.2.3 tcp 80", "pass ingress net1 fd00::9 tcp 80",
			"drop ingress net1 fd00:1::1 tcp 80",
		},
	}, {
		"a pod in what a block excludes is allowed as a pod",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}]}]}`),
			model.NewPeer("x", "", "net1 net-a 10.0.0.2"),
		},
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.3 tcp 80", "pass ingress net1 10.0.1.3 tcp 80"},
	}, {
		"host bits of a block mean nothing, mapped blocks are IPv4",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.9/24}}, {ipBlock: {cidr: "::ffff:10.5.0.0/112"}}]}]}`)},
		[]string{"pass ingress net1 10.0.0.200 tcp 80", "pass ingress net1 10.5.1.1 tcp 80", "drop ingress net1 10.6.1.1 tcp 80"},
	}, {
		"a protocol with and without a port in one list is all of the protocol",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{ingress: [{ports: [{protocol: TCP}, {port: 80}, {protocol: UDP, port: 53, endPort: 60}]}]}`)},
		[]string{
			"pass ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.2 tcp 81", "pass ingress net1 10.0.0.2 tcp 65535",
			"drop ingress net1 10.0.0.2 udp 52", "pass ingress net1 10.0.0.2 udp 53", "pass ingress net1 10.0.0.2 udp 60",
			"drop ingress net1 10.0.0.2 udp 61", "drop ingress net1 10.0.0.2 sctp 80", "drop ingress net1 10.0.0.2 icmp",
		},
	}, {
		"named ports: those of the pod for ingress, those of each peer for egress",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `
ingress: [{ports: [{port: http}, {port: dns, protocol: UDP}, {port: side}, {port: init}]}]
egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: 10.8.0.0/16}}], ports: [{port: http}, {port: 53, protocol: UDP}]}]`),
			model.WithPorts(model.NewPeer("x", "", "net1 net-a 10.0.0.2 fd00::2"), "http=8080/TCP"),
			model.WithPorts(model.NewPeer("y", "", "net1 net-a 10.0.0.3"), "http=9090/TCP", "other=8080/TCP"),
			model.WithPorts(model.NewPeer("z", "", "net1 net-a 10.0.0.4"), "http=7070/UDP"),
		},
		[]string{
			"pass ingress net1 10.0.0.2 tcp 80", "drop ingress net1 10.0.0.2 tcp 8080", "pass ingress net1 10.0.0.2 udp 53",
			"drop ingress net1 10.0.0.2 tcp 53", "pass ingress net1 10.0.0.2 tcp 15000", "drop ingress net1 10.0.0.2 tcp 15001",
			"pass egress net1 10.0.0.2 tcp 8080", "pass egress net1 fd00::2 tcp 8080", "drop egress net1 10.0.0.2 tcp 9090",
			"pass egress net1 10.0.0.3 tcp 9090", "drop egress net1 10.0.0.3 tcp 8080", "drop egress net1 10.0.0.4 tcp 7070",
			"pass egress net1 10.0.0.4 udp 53", "pass egress net1 10.8.0.1 udp 53", "drop egress net1 10.8.0.1 tcp 8080",
		},
	}, {
		"a named port that nobody has is no port",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{ingress: [{ports: [{port: none}]}], egress: [{ports: [{port: none}]}]}`)},
		[]string{"drop ingress net1 10.0.0.2 tcp 80", "drop egress net1 10.0.0.2 tcp 80"},
	}, {
		"named egress ports to everyone are those of every pod on the policy's networks",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{egress: [{ports: [{port: http}]}]}`),
			model.WithPorts(model.NewPeer("ops/x", "", "net1 default/net-a 10.0.0.2"), "http=8080/TCP"),
			model.WithPorts(model.NewPeer("ops/y", "", "net1 default/net-b 10.0.0.3"), "http=8080/TCP"),
		},
		[]string{"pass egress net1 10.0.0.2 tcp 8080", "drop egress net1 10.0.0.3 tcp 8080", "drop egress net1 10.0.0.9 tcp 8080"},
	}, {
		"what IPv6 needs on a link passes, other ICMPv6 does not",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{policyTypes: [Ingress, Egress]}`)},
		[]string{
			"pass ingress net1 fe80::1 icmpv6 135", "pass egress net1 fe80::1 icmpv6 136", "pass ingress net1 fe80::1 icmpv6 130",
			"pass egress net1 ff02::16 icmpv6 143", "drop ingress net1 fe80::1 icmpv6 128", "drop ingress net1 fe80::1 icmpv6 137",
		},
	}, {
		"a policy does not let in the pod's own address: it can be spoofed",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}`)},
		[]string{"drop ingress net1 10.0.0.1 tcp 80", "drop ingress net1 fd00::1 tcp 80"},
	}, {
		"policies c/a-b and b-c/a in one pod's reach do not mix",
		[]metav1.Object{
			model.NewPolicy("a-b", "net-a", `{ingress: [{ports: [{port: 80}]}]}`),
			model.NewPolicy("a", "net-a", `{ingress: [{ports: [{port: 81}]}]}`),
			model.NewPolicy("default-a/b", "default/net-a", `{ingress: [{ports: [{port: 82}]}]}`),
		},
		[]string{"pass ingress net1 10.0.0.2 tcp 80", "pass ingress net1 10.0.0.2 tcp 81", "drop ingress net1 10.0.0.2 tcp 82"},
	},
}

func TestSemantics(t *testing.T) {
	for _, tt := range semantics {
		t.Run(tt.name, func(t *testing.T) {
			wantPackets(t, newCluster(t, append(tt.objects, model.WebPod())...), "web", tt.packets...)
		})
	}
}

func TestAcceptICMP(t *testing.T) {
	o := testOptions()
	o.AcceptICMP, o.AcceptICMPv6 = true, true
	c := New(o)
	play(c, []metav1.Object{model.WebPod(), model.NewPolicy("p", "net-a", `{}`)})
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.2 icmp", "pass ingress net1 fd00::2 icmpv6 128", "drop ingress net1 10.0.0.2 tcp 80")
}

// Names with a dash are not names joined by a dash.
func TestPolicyIdentity(t *testing.T) {
	name := func(key string) string {
		p := compile(model.NewPolicy(key, "net-a", `{}`))
		return p.Sections[engine.Ingress].ChainName
	}
	if a, b := name("c/a-b"), name("b-c/a"); a == b {
		t.Errorf("c/a-b and b-c/a are both %s", a)
	}
	if a, b := name("a/b"), name("a/b"); a != b {
		t.Errorf("a/b is %s and %s", a, b)
	}
}

// Rules that say the same share a group, however they say it; rules that do not, do not.
func TestGroupIdentity(t *testing.T) {
	name := func(networks, from string) string {
		p := compile(model.NewPolicy("p", networks, `{ingress: [{from: `+from+`}]}`))
		return p.Sections[engine.Ingress].Rules[0].Peers.Name()
	}
	const one = `[{podSelector: {matchLabels: {a: b, c: d}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]`
	same := []struct{ networks, from string }{
		{"net-a,net-b", `[{ipBlock: {cidr: 10.9.0.0/8, except: [10.2.0.0/16, 10.1.0.0/16, 10.1.0.0/16, 11.0.0.0/8]}}, {podSelector: {matchLabels: {c: d, a: b}}}]`},
		{"net-b, default/net-a, net-a", `[{podSelector: {matchLabels: {c: d}, matchExpressions: [{key: a, operator: In, values: [b]}]}},
{podSelector: {matchLabels: {a: b, c: d}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}, {ipBlock: {cidr: nonsense}}]`},
	}
	for _, tt := range same {
		if got, want := name(tt.networks, tt.from), name("net-a,net-b", one); got != want {
			t.Errorf("%s is %s, want %s", tt.from, got, want)
		}
	}
	seen := map[string]string{}
	for _, from := range []string{
		one, `[{podSelector: {}}]`, `[{namespaceSelector: {}}]`, `[{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}]`,
		`[{namespaceSelector: {matchLabels: {a: b}}}]`, `[{podSelector: {matchLabels: {a: b}}}]`, `[{podSelector: {matchLabels: {a: ""}}}]`,
		`[{podSelector: {matchExpressions: [{key: a, operator: Exists}]}}]`,
		`[{podSelector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}}]`,
		`[{podSelector: {matchLabels: {a: b}}}, {podSelector: {matchLabels: {a: c}}}]`,
		`[{ipBlock: {cidr: 10.0.0.0/8}}]`, `[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]`,
		`[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 10.2.0.0/16}}]`,
		`[{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.2.0.0/16}}]`,
	} {
		n := name("net-a", from)
		if other := seen[n]; other != "" {
			t.Errorf("%s and %s are the same group", from, other)
		}
		seen[n] = from
	}
}

// Interfaces with names that nft does not take in an identifier, or that collide once made fit.
func TestInterfaceNames(t *testing.T) {
	c := newCluster(t, model.NewPolicy("p", "net-a", `{}`),
		model.NewPod("web", "", "net+1 net-a 10.0.0.1", "net@1 net-a 10.0.0.2", "net_1 net-a 10.0.0.3", "9.ü net-a"))
	wantPackets(t, c, "web", "drop ingress net+1 10.0.0.9 tcp 80", "drop ingress net@1 10.0.0.9 tcp 80",
		"drop ingress net_1 10.0.0.9 tcp 80", "drop ingress 9.ü 10.0.0.9 tcp 80", "pass ingress net-1 10.0.0.9 tcp 80")
	chains := map[string]bool{}
	for _, ch := range ruleset(c, "web").Chains {
		chains[ch.Name] = true
	}
	if !chains["ingress-net_1"] || len(chains) != 8 {
		t.Errorf("chains: %v", chains)
	}
}

// Members of a group that share addresses, with each other or with a block, come and go.
func TestMembersThatShareAddresses(t *testing.T) {
	c := newCluster(t, model.WebPod(), model.NewPolicy("p", "net-a, net-b", `
ingress: [{from: [{podSelector: {matchLabels: {app: client}}}, {ipBlock: {cidr: 10.5.0.0/16}}]}]
egress: [{to: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]`))
	client := func(name string, attachments ...string) {
		t.Helper()
		upsert(c, model.WithPorts(model.NewPeer(name, "app=client", attachments...), "http=8080/TCP"))
	}
	want := func(packets ...string) {
		t.Helper()
		wantPackets(t, c, "web", append(packets, "pass ingress net1 10.5.0.1 tcp 80", "pass ingress net1 10.5.0.2 tcp 80")...)
	}
	pass := []string{"pass ingress net1 10.0.0.2 tcp 80", "pass egress net1 10.0.0.2 tcp 8080"}
	drop := []string{"drop ingress net1 10.0.0.2 tcp 80", "drop egress net1 10.0.0.2 tcp 8080"}
	for _, name := range []string{"before anybody looks", "with a group that is active"} {
		t.Run(name, func(t *testing.T) {
			client("x", "net1 net-a 10.0.0.2 10.5.0.1", "net2 net-b 10.0.0.2")
			client("y", "net1 net-a 10.0.0.2 10.5.0.1")
			want(pass...)
			client("x", "net1 net-a 10.5.0.2")
			want(pass...)
			client("x", "net1 net-a 10.0.0.2")
			client("y", "net1 net-z 10.0.0.2")
			want(pass...)
			client("x", "net2 net-b 10.0.0.2")
			want(pass...)
			c.DeletePod(model.KeyOf("x"))
			want(drop...)
			c.DeletePod(model.KeyOf("y"))
			want(drop...)
		})
	}
}

// A policy of which only one thing changes.
func TestPolicyEdits(t *testing.T) {
	const rules = `, ingress: [{ports: [{port: 80}]}]}`
	c := newCluster(t, model.WebPod(), model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: db}}`+rules))
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.2 tcp 81")
	upsert(c, model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: web}}`+rules))
	wantPackets(t, c, "web", "drop ingress net1 10.0.0.2 tcp 81")
	upsert(c, model.NewPolicy("p", "net-b", `{podSelector: {matchLabels: {app: web}}`+rules))
	wantPackets(t, c, "web", "pass ingress net1 10.0.0.2 tcp 81", "drop ingress net2 10.0.0.2 tcp 81")
	upsert(c, model.NewPolicy("p", "net-b", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]`+rules))
	wantPackets(t, c, "web", "pass ingress net2 10.0.0.2 tcp 81", "drop egress net2 10.0.0.2 tcp 81")
	upsert(c, model.NewPolicy("p", "net-b", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]`+rules))
	wantPackets(t, c, "web", "pass egress net2 10.0.0.2 tcp 81")
	const nothing = "drop ingress net1 10.0.0.2 tcp 80"
	for _, edit := range []struct{ from, ports, packet string }{
		{"", "[{port: 0}]", nothing}, {"", "[]", "pass ingress net1 10.0.0.2 tcp 80"}, {"", "[{port: 0}]", nothing},
		{"", "[{port: http}]", "pass ingress net1 10.0.0.2 tcp 80"}, {"", "[{port: dns}]", nothing},
		{"[{}]", "[]", nothing}, {"[]", "[]", "pass ingress net1 10.0.0.2 tcp 80"},
	} {
		upsert(c, model.NewPolicy("p", "net-a", `{ingress: [{from: `+edit.from+`, ports: `+edit.ports+`}]}`))
		wantPackets(t, c, "web", edit.packet)
	}
}

// A rule that can never match is not in the table; a rule that nobody matches now is.
func TestRulesThatMatchNobody(t *testing.T) {
	c := newCluster(t, model.WebPod(), model.NewPolicy("p", "net-a", `
ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]
egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}]}]`))
	upsert(c, model.NewPolicy("q", "net-a", `{ingress: [{from: [{}]}, {ports: [{port: 0}]}, {from: [{podSelector: {}}], ports: [{port: none}]}]}`))
	rules := map[string]int{}
	for _, ch := range ruleset(c, "web").Chains {
		for _, r := range ch.Rules {
			rules[r.Comment]++
		}
	}
	want := map[string]int{"": rules[""], "default/p": 2, "default/q": 1, "default/p ingress[0]": len(sets.Families)}
	if diff := cmp.Diff(want, rules); diff != "" {
		t.Errorf("rules by comment (-want +got):\n%s", diff)
	}
}

// TestClusterNetwork: a policy for the cluster's own network, by its name in the network status, isolates eth0.
func TestClusterNetwork(t *testing.T) {
	c := newCluster(t, model.WebPod(), model.NewPolicy("p", "cluster-net", `{}`))
	wantPackets(t, c, "web", "drop ingress eth0 10.244.0.9 tcp 80", "pass ingress net1 10.0.0.2 tcp 80")
}
