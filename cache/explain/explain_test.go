package explain

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// newQuery reads "web ingress net1 10.0.0.1 tcp 80"; the interface "*" is none in particular.
func newQuery(s string) Query {
	pod, rest, _ := strings.Cut(s, " ")
	p := model.NewPacket(rest)
	q := Query{
		Pod: model.KeyOf(pod), Interface: p.Iface, Direction: p.Direction, Remote: p.Peer, Protocol: p.Proto, Port: p.Port,
		ICMPType: uint8(max(p.Icmpv6Type, 0)),
	}
	if q.Interface == "*" {
		q.Interface = ""
	}
	return q
}

// told is an explanation in lines: for each interface the verdict and who decides, then what is said of each policy and
// rule.
func told(e Explanation) []string {
	var lines []string
	for _, i := range e.Interfaces {
		lines = append(lines, i.Interface+" "+string(i.Verdict)+" by "+i.DecidedBy)
		for _, p := range i.Policies {
			if p.Reason != "" {
				lines = append(lines, p.Policy+" "+p.Reason)
			}
			for _, r := range p.Rules {
				lines = append(lines, p.Policy+" "+r.Rule+": "+r.Reason)
			}
			for _, problem := range p.Problems {
				lines = append(lines, p.Policy+" problem: "+problem)
			}
		}
	}
	return lines
}

var explanations = []struct {
	name    string
	objects []metav1.Object
	query   string
	want    []string
}{
	{
		"no policy: not isolated", nil, "web ingress * 10.0.0.9 tcp 80",
		[]string{"eth0 allowed by no policy", "net1 allowed by no policy", "net2 allowed by no policy"},
	}, {
		"a rule that allows, and one that does not",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [
{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.9/32]}}], ports: [{port: 80}, {port: 90, endPort: 99, protocol: UDP}, {protocol: SCTP}]},
{ports: [{port: 81}]}]}`),
		},
		"web ingress * 10.0.0.9 tcp 81",
		[]string{
			"net1 allowed by default/p ingress[1]",
			"default/p ingress[0]: peers do not include 10.0.0.9 (10.0.0.0/24 except 10.0.0.9/32): " +
				"10.0.0.9/32 is excepted from 10.0.0.0/24; port 81/tcp is not in [80/tcp, 90-99/udp, sctp]",
			"default/p ingress[1]: everyone is a peer; port 81/tcp is in [81/tcp]",
		},
	}, {
		"peers that match, a port that does not",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]}`),
			model.NewPeer("client", "app=client", "net1 net-a 10.0.0.9"),
		},
		"web ingress net1 10.0.0.9 tcp 81",
		[]string{"net1 denied by no rule", "default/p ingress[0]: port 81/tcp is not in [80/tcp]"},
	}, {
		"a protocol without ports passes under a rule without ports alone",
		[]metav1.Object{
			model.NewPolicy("p", "net-a", `{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 80}]},{to: [{ipBlock: {cidr: 10.0.0.8/29}}]}]}`),
		},
		"web egress net1 10.0.0.9 icmp",
		[]string{
			"net1 allowed by default/p egress[1]",
			"default/p egress[0]: icmp type 0 is not in [80/tcp]",
			"default/p egress[1]: peers include 10.0.0.9 (10.0.0.8/29); any protocol and port is allowed",
		},
	}, {
		"policies that do not isolate the interface, each for its reason",
		[]metav1.Object{
			model.NewPolicy("egress", "net-a", `{policyTypes: [Egress]}`),
			model.NewPolicy("for-b", "net-b, net-c", `{}`),
			model.NewPolicy("label", "net-a", `{podSelector: {matchLabels: {app: db, tier: x}, matchExpressions: [{key: app, operator: Exists}]}}`),
			model.NewPolicy("other/elsewhere", "default/net-a", `{}`),
		},
		"web ingress net1 10.0.0.9 tcp 80",
		[]string{
			"net1 allowed by no policy",
			"default/egress policyTypes do not include Ingress",
			"default/for-b is for other networks: default/net-b, default/net-c",
			"default/label does not select the pod: label app=db wanted, the pod has app=web; label tier=x wanted, the pod has no tier",
		},
	}, {
		"policyTypes absent, no egress rules",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{}`)},
		"web egress net1 10.0.0.9 tcp 80",
		[]string{"net1 allowed by no policy", "default/p has no policyTypes and no egress rules, so it is about Ingress alone"},
	}, {
		"a network whose plugin type policies do not isolate",
		[]metav1.Object{model.NewNAD("net-a", "ptp"), model.NewPolicy("p", "net-a", `{}`)},
		"web ingress net1 10.0.0.9 tcp 80",
		[]string{"net1 allowed by no policy", "default/p is for default/net-a, whose plugin type ptp is none of --network-plugins"},
	}, {
		"a network whose policies another implementation enforces",
		[]metav1.Object{model.NewNAD("net-a", "ovn-k8s-cni-overlay"), model.NewPolicy("p", "net-a", `{}`)},
		"web ingress net1 10.0.0.9 tcp 80",
		[]string{"net1 allowed by no policy", "default/p is for default/net-a, whose policies OVN-Kubernetes enforces (plugin type ovn-k8s-cni-overlay)"},
	}, {
		"named ports of the pod",
		[]metav1.Object{
			model.WithPorts(model.NewPod("named", "app=named", "net1 net-a 10.0.0.1"), "http=8080/TCP"),
			model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: named}}, ingress: [{ports: [{port: http}, {port: none}]}, {ports: [{port: none}]}]}`),
		},
		"named ingress net1 10.0.0.9 tcp 8080",
		[]string{
			"net1 allowed by default/p ingress[0]",
			"default/p ingress[0]: everyone is a peer; port 8080/tcp is in [http/tcp (8080), none/tcp (no port of the pod)]",
			"default/p ingress[1]: port 8080/tcp is not in [none/tcp (no port of the pod)]",
		},
	}, {
		"named ports of the peer",
		[]metav1.Object{
			model.WithPorts(model.NewPeer("db", "app=db", "net1 net-a 10.0.0.9"), "sql=5432/TCP"),
			model.NewPolicy("p", "net-a", `{egress: [{to: [{podSelector: {}}], ports: [{port: other}]}, {to: [{podSelector: {}}], ports: [{port: sql}]}]}`),
		},
		"web egress net1 10.0.0.9 tcp 5432",
		[]string{
			"net1 allowed by default/p egress[1]",
			"default/p egress[0]: port 5432/tcp is not in [other/tcp (of the peer)]",
			"default/p egress[1]: 10.0.0.9 has 5432/tcp under a name in [sql/tcp]",
		},
	}, {
		"the peer's address on a network that the policy is not for",
		[]metav1.Object{
			model.NewPeer("db", "app=db", "net1 net-b 10.0.0.9"),
			model.NewPolicy("p", "net-a", `{ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`),
		},
		"web ingress net1 10.0.0.9 tcp 5432",
		[]string{
			"net1 denied by no rule",
			"default/p ingress[0]: peers do not include 10.0.0.9 (default: pods app=db): " +
				"a selected pod has it on default/net-b, which the policy is not for",
		},
	}, {
		"neighbor discovery",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{}`)},
		"web ingress net1 fd00::9 icmpv6 135", []string{"net1 allowed by neighbor discovery"},
	}, {
		"an echo request is none",
		[]metav1.Object{model.NewPolicy("p", "net-a", `{}`)},
		"web ingress net1 fd00::9 icmpv6 128", []string{"net1 denied by no rule"},
	}, {
		"a pod of another node",
		[]metav1.Object{
			model.NewPeer("far", "app=far", "net1 net-a 10.0.0.5"),
			model.NewPolicy("p", "net-a", `{podSelector: {matchLabels: {app: far}}, ingress: [{ports: [{port: 80}]}]}`),
		},
		"far ingress * 10.0.0.9 tcp 80",
		[]string{"net1 allowed by default/p ingress[0]", "default/p ingress[0]: everyone is a peer; port 80/tcp is in [80/tcp]"},
	},
}

func TestExplain(t *testing.T) {
	for _, tt := range explanations {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, append(tt.objects, model.WebPod())...)
			got, err := Explain(c, newQuery(tt.query))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, told(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Invalid fields, and the rules of which nothing is left, are part of the answer.
func TestExplainProblems(t *testing.T) {
	c := newCluster(t, model.WebPod())
	upsert(c, model.NewPolicy("p", "net-a", `{policyTypes: [Ingres], ingress: [
{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}, {from: [{ipBlock: {cidr: x}}, {ipBlock: {cidr: 10.1.0.0/16}}], ports: [{port: 0}]}], egress: [{to: [{}]}]}`))
	want := []string{
		"net1 denied by no rule",
		"default/p ingress[0]: allows nobody: its peers or its ports are invalid, or exceed a limit",
		"default/p ingress[1]: peers do not include 10.0.0.9 (10.1.0.0/16); port 80/tcp is not in []",
		`default/p problem: spec.policyTypes[0]: "Ingres" is neither Ingress nor Egress, so the policy isolates both directions`,
		`default/p problem: spec.ingress[0].from[0].ipBlock.cidr: "10.0.0.0/33" is not a CIDR, so the block allows nobody`,
		`default/p problem: spec.ingress[1].from[0].ipBlock.cidr: "x" is not a CIDR, so the block allows nobody`,
		"default/p problem: spec.ingress[1].ports[0].port: 0 is not a port from 1 to 65535, so it allows nothing",
	}
	got, err := Explain(c, newQuery("web ingress net1 10.0.0.9 tcp 80"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, told(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The same in meaning, and better written.
	upsert(c, model.NewPolicy("p", "net-a", `{policyTypes: [Ingress, Egress], ingress: [
{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}, {from: [{ipBlock: {cidr: 10.1.0.0/16}}], ports: [{port: 0}]}]}`))
	got, err = Explain(c, newQuery("web ingress net1 10.0.0.9 tcp 80"))
	if err != nil {
		t.Fatal(err)
	}
	want = append(want[:3:3], want[4], want[6])
	if diff := cmp.Diff(want, told(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestExplainNobody(t *testing.T) {
	bad := model.NewPod("bad", "")
	bad.Annotations = map[string]string{cache.StatusAnnotation: "{"}
	c := cache.New(testOptions())
	for _, o := range []metav1.Object{model.WebPod(), bad, model.NewPod("bare", "")} {
		upsert(c, o)
	}
	for _, tt := range []struct {
		query string
		want  error
	}{
		{"none ingress * 10.0.0.9 tcp 80", ErrNoPod},
		{"bare ingress * 10.0.0.9 tcp 80", ErrNoPod},
		{"bad ingress * 10.0.0.9 tcp 80", ErrNoStatus},
		{"web ingress net9 10.0.0.9 tcp 80", ErrNoInterface},
	} {
		if _, err := Explain(c, newQuery(tt.query)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.query, err, tt.want)
		}
	}
}

// What is common to all pods, by the flags.
func TestExplainCommon(t *testing.T) {
	addrs := func(prefixes ...string) (all sets.Addrs) {
		for _, p := range prefixes {
			all = all.Insert(sets.PrefixRange(netip.MustParsePrefix(p)))
		}
		return all
	}
	o := testOptions()
	o.AcceptICMP, o.AcceptICMPv6 = true, true
	o.Ingress = cache.Common{Sources: addrs("10.7.0.0/16"), Destinations: addrs("fd00::/64")}
	o.Egress = cache.Common{Sources: addrs("10.0.0.0/31"), Destinations: addrs("10.8.0.0/16")}
	c := cache.New(o)
	upsert(c, model.NewPod("web", "", "net1 net-a 10.0.0.1 fd00::1", "net2 net-a 10.0.0.1 10.0.0.2"))
	upsert(c, model.NewPolicy("p", "net-a", `{policyTypes: [Ingress, Egress]}`))
	for query, want := range map[string]string{
		"web ingress net1 10.0.0.9 icmp":      "--accept-icmp",
		"web ingress net1 fd00::9 icmpv6 128": "--accept-icmpv6",
		"web ingress net1 fd00::9 icmpv6 143": "neighbor discovery",
		"web ingress net1 10.7.0.9 tcp 80":    "allowed source prefixes",
		"web ingress net1 10.8.0.9 tcp 80":    "no rule",
		"web ingress net1 fd01::1 tcp 80":     "allowed destination prefixes",
		"web egress net1 10.8.0.9 udp 80":     "allowed source prefixes",
		"web egress net2 10.8.0.9 udp 80":     "allowed destination prefixes",
		"web egress net2 10.7.0.9 udp 80":     "no rule",
		"web egress net1 fd00::9 udp 80":      "no rule",
	} {
		got, err := Explain(c, newQuery(query))
		if err != nil {
			t.Fatal(err)
		}
		if by := got.Interfaces[0].DecidedBy; by != want {
			t.Errorf("%s: by %s, want %s", query, by, want)
		}
	}
}

// TestNotEnforced: where the kernel hides packets from rules, the verdict is neither allowed nor denied, and a change of policies
// closes nothing.
func TestNotEnforced(t *testing.T) {
	o := testOptions()
	o.UnenforceableRuntimes = cache.DefaultUnenforceableRuntimes()
	kata := "kata-qemu"
	pod := model.With(model.NewPod("web", "app=web", "net1 net-a 10.0.0.1"), func(p *corev1.Pod) { p.Spec.RuntimeClassName = &kata })
	before, after := cache.New(o), cache.New(o)
	play(before, []metav1.Object{pod})
	play(after, []metav1.Object{pod, model.NewPolicy("p", "net-a", `{ingress: [{ports: [{port: 80}]}]}`)})
	for query, want := range map[string]string{
		"web ingress net1 10.0.0.9 tcp 80": "net1 not enforced by no rule",
		"web ingress net1 10.0.0.9 tcp 81": "net1 not enforced by no rule",
		"web egress net1 10.0.0.9 tcp 81":  "net1 allowed by no policy",
	} {
		e, err := Explain(after, newQuery(query))
		if err != nil {
			t.Fatal(err)
		}
		if got := told(e)[0]; got != want || strings.Contains(want, "enforced") != strings.Contains(e.Interfaces[0].Reason, "runtime kata-qemu") {
			t.Errorf("%s: %s, %s; want %s", query, got, e.Interfaces[0].Reason, want)
		}
	}
	want := []string{"default/web net1 ingress open to isolated, but not enforced"}
	if diff := cmp.Diff(want, toldChanges(Diff(before, after))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := toldChanges(Diff(after, after)); got != nil {
		t.Errorf("without a change: %v", got)
	}
}

// TestExplainL3S: ipvlan in mode l3s shows the sent packets to the rules, and not the received ones. So an explanation of egress is
// as for other interfaces. If egress is isolated, the replies to clients are dropped.
func TestExplainL3S(t *testing.T) {
	const rules = `ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 80}]}]`
	for _, tt := range []struct {
		types, query, want string
		lost               bool // replies
	}{
		{"Ingress, Egress", "web egress net1 10.0.0.9 tcp 80", "net1 allowed by default/p egress[0]", true},
		{"Ingress, Egress", "web egress net1 10.0.0.9 tcp 81", "net1 denied by no rule", true},
		{"Ingress, Egress", "web ingress net1 10.0.0.9 tcp 80", "net1 not enforced by no rule", false},
		{"Ingress", "web egress net1 10.0.0.9 tcp 81", "net1 allowed by no policy", false},
		{"Ingress", "web ingress net1 10.0.0.9 tcp 81", "net1 not enforced by no rule", false},
		{"Egress", "web ingress net1 10.0.0.9 tcp 81", "net1 allowed by no policy", true},
	} {
		c := cache.New(testOptions())
		play(c, []metav1.Object{
			model.NewPod("web", "app=web", "net1 net-a 10.0.0.1"), model.NewPolicy("p", "net-a", "{policyTypes: ["+tt.types+"], "+rules+"}"),
		})
		c.UpsertNAD(cache.NewNAD(model.KeyOf("net-a"), `{"type": "ipvlan", "mode": "l3s"}`))
		e, err := Explain(c, newQuery(tt.query))
		if err != nil {
			t.Fatal(err)
		}
		if got, lost := told(e)[0], len(e.Interfaces[0].Caveats) > 0; got != tt.want || lost != tt.lost {
			t.Errorf("%s, %s: %s, replies are lost: %t; want %s, %t", tt.types, tt.query, got, lost, tt.want, tt.lost)
		}
	}
}

// TestExplainUnknownKind: a denial says so if nobody can tell whether the interface is of a kind that policies can be enforced on.
func TestExplainUnknownKind(t *testing.T) {
	const created = 1_800_000_000
	for name, tt := range map[string]struct {
		config  string
		since   int64
		verdict Verdict
		told    string
	}{
		"a definition from before":      {`{"type": "macvlan"}`, created, Denied, ""},
		"an edited definition":          {`{"type": "macvlan"}`, created + 1, Denied, "edited after"},
		"a definition on the disk":      {``, created, Denied, "no definition that can be read here"},
		"l3s from before":               {`{"type": "ipvlan", "mode": "l3s"}`, created, NotEnforced, "l3s"},
		"a definition edited to l3s":    {`{"type": "ipvlan", "mode": "l3s"}`, created + 1, NotEnforced, "may be of an earlier kind"},
		"a definition edited to a typo": {`{"type": "mcvlan"}`, created + 1, Denied, "edited after"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := model.With(model.NewPod("web", "app=web", "net1 net-a 10.0.0.1"), func(p *corev1.Pod) { p.CreationTimestamp = metav1.Unix(created, 0) })
			c := cache.New(testOptions())
			play(c, []metav1.Object{pod, model.NewPolicy("p", "net-a", `{ingress: [{ports: [{port: 80}]}]}`)})
			nad := cache.NewNAD(model.KeyOf("net-a"), tt.config)
			nad.Since = tt.since
			c.UpsertNAD(nad)
			e, err := Explain(c, newQuery("web ingress net1 10.0.0.9 tcp 81"))
			if err != nil {
				t.Fatal(err)
			}
			i := e.Interfaces[0]
			text := strings.Join(i.Caveats, "")
			if i.Verdict == NotEnforced {
				text += i.Reason
			}
			if i.Verdict != tt.verdict || (tt.told == "") != (text == "") || !strings.Contains(text, tt.told) {
				t.Errorf("%s: %q", i.Verdict, text)
			}
			allowed, err := Explain(c, newQuery("web ingress net1 10.0.0.9 tcp 80"))
			if err != nil || allowed.Interfaces[0].Caveats != nil {
				t.Errorf("an allowed packet: %q %v", allowed.Interfaces[0].Caveats, err)
			}
		})
	}
}

// TestExplainBridge: for a virtual machine the kernel may decide.
func TestExplainBridge(t *testing.T) {
	for support, want := range map[cache.BridgeSupport]string{
		cache.BridgeStateful: "net1 allowed by default/p ingress[0]", cache.BridgeDrops: "net1 denied by the kernel", cache.BridgeMissing: "net1 allowed by the kernel",
	} {
		o := testOptions()
		o.Bridge = support
		c := cache.New(o)
		upsert(c, model.NewPod("web", "kubevirt.io=virt-launcher", "net1 net-a 10.0.0.1"))
		upsert(c, model.NewPolicy("p", "net-a", `{ingress: [{}]}`))
		e, err := Explain(c, newQuery("web ingress net1 10.0.0.9 tcp 80"))
		if err != nil {
			t.Fatal(err)
		}
		if got := told(e)[0]; got != want || (e.Interfaces[0].Bridge != "") != (support == cache.BridgeStateful) {
			t.Errorf("support %d: %s, %q, want %s", support, got, e.Interfaces[0].Bridge, want)
		}
	}
}
