package cache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// room is a cache with small limits. The namespaces good and evil each have the pod web; there are peers in both.
type room struct {
	*testing.T
	*Cache
}

func newRoom(t *testing.T, change func(*policy.Limits), peers int) room {
	o := testOptions()
	o.Limits = policy.DefaultLimits()
	change(&o.Limits)
	r := room{t, New(o)}
	upsert(r.Cache, model.NewNAD("net", "macvlan"))
	for _, ns := range []string{"good", "evil"} {
		upsert(r.Cache, model.NewNamespace(ns, "team="+ns))
		upsert(r.Cache, model.NewPod(ns+"/web", "app=web", "net1 default/net 10.0.0.1"))
	}
	for i := range peers {
		upsert(r.Cache, r.peer(i))
	}
	return r
}

func (room) peer(i int) *corev1.Pod {
	return model.NewPeer(fmt.Sprintf("good/peer-%d", i), "app=peer", fmt.Sprintf("net1 default/net 10.1.0.%d", i+1))
}

func (r room) policy(key string, spec string) {
	p := policy.Compile(policy.ObjectOf(r.object(key, spec)), r.limits)
	r.UpsertPolicy(p)
}

func (room) object(key, spec string) *mnpv1.MultiNetworkPolicy {
	return model.NewPolicy(key, "default/net", spec)
}

// allows reports whether the table of a pod has the peers, and requires that the pod is isolated.
func (r room) allows(pod string) bool {
	r.Helper()
	text := renderPod(r, r.Cache, pod)
	if !strings.Contains(text, `iifname "net1" goto ingress-net1`) {
		r.Errorf("%s is not isolated:\n%s", pod, text)
	}
	return strings.Contains(text, "10.1.0.")
}

func (r room) told() string {
	var told []string
	for _, s := range r.Shortfalls() {
		for _, p := range s.Problems {
			told = append(told, s.Policy.String()+" "+string(s.Reason)+": "+p.Message)
		}
	}
	return strings.Join(told, "\n")
}

const everyPeer = `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: peer}}}]}]}`

// A namespace over its limit of members loses the groups that do not fit. A namespace that uses the same group keeps it.
func TestMemberLimit(t *testing.T) {
	r := newRoom(t, func(l *policy.Limits) { l.NamespaceMembers = 15 }, 10)
	r.policy("good/p", everyPeer)
	r.policy("evil/a", everyPeer)
	if !r.allows("good/web") || !r.allows("evil/web") {
		t.Fatal("within the limit, and not allowed")
	}
	// The second group of the namespace does not fit.
	r.policy("evil/b", strings.Replace(everyPeer, "namespaceSelector: {}", "namespaceSelector: {matchLabels: {team: good}}", 1))
	if !r.allows("good/web") || !r.allows("evil/web") {
		t.Error("the first policy lost its peers")
	}
	if told := r.told(); !strings.Contains(told, "evil/b PodLimitExceeded: its peer groups exceed the limit namespace-members=15") {
		t.Errorf("told %q", told)
	}
	if n := r.Stats().LimitedPods; n != 1 {
		t.Errorf("%d pods over a limit", n)
	}
	// More peers come: each namespace has its own limit, and the group that both use is too large for either alone.
	for i := 10; i < 20; i++ {
		upsert(r.Cache, r.peer(i))
	}
	settle(r.Cache)
	if r.allows("good/web") || r.allows("evil/web") {
		t.Error("groups over the limit have members")
	}
	// The peers go, and the groups come back.
	for i := 3; i < 20; i++ {
		r.DeletePod(Key{Namespace: "good", Name: fmt.Sprintf("peer-%d", i)})
	}
	r.Reconsider()
	settle(r.Cache)
	if !r.allows("good/web") || !r.allows("evil/web") || r.told() != "" || r.Stats().LimitedPods != 0 {
		t.Errorf("there is room again: %q", r.told())
	}
	r.empty()
}

// One namespace exceeds its limit while a group that another namespace uses as well grows.
func TestMemberLimitOfOneNamespace(t *testing.T) {
	r := newRoom(t, func(l *policy.Limits) { l.NamespaceMembers = 25 }, 10)
	r.policy("good/p", everyPeer)
	r.policy("evil/a", strings.Replace(everyPeer, "namespaceSelector: {}", "namespaceSelector: {matchLabels: {team: good}}", 1))
	r.policy("evil/b", everyPeer) // the group of good/p
	settle(r.Cache)
	for i := 10; i < 20; i++ {
		upsert(r.Cache, r.peer(i))
	}
	settle(r.Cache)
	if text := renderPod(t, r.Cache, "good/web"); !strings.Contains(text, "10.1.0.20") && !strings.Contains(text, "-10.1.0.") {
		t.Errorf("the other namespace lost its peers:\n%s", text)
	}
	if !strings.Contains(r.told(), "namespace-members=25") {
		t.Errorf("told %q", r.told())
	}
	r.empty()
}

// All namespaces together want too much: a namespace that wants little keeps it.
func TestNodeLimits(t *testing.T) {
	blocks := func(n int) string {
		return fmt.Sprintf(`{podSelector: {}, ingress: [{from: [%s, {podSelector: {matchLabels: {app: peer}}, namespaceSelector: {}}]}]}`,
			repeat(n, func(i int) string { return fmt.Sprintf("{ipBlock: {cidr: 10.1.%d.0/24}}", i) }))
	}
	r := newRoom(t, func(l *policy.Limits) { l.NodeItems, l.NamespaceItems = 170, 1000 }, 3)
	r.policy("good/p", blocks(20))
	r.policy("evil/p", blocks(60))
	if !r.allows("good/web") || r.allows("evil/web") {
		t.Error("the larger namespace must lose its rules, and the smaller keep them")
	}
	if n := r.Stats().LimitedPolicies; n != 1 {
		t.Errorf("%d policies over a limit", n)
	}
	r.policy("evil/p", blocks(20))
	if !r.allows("evil/web") {
		t.Error("there is room again")
	}
	r.policy("evil/p", blocks(60))
	r.DeletePolicy(Key{Namespace: "good", Name: "p"})
	if keys := r.TakeRefetch(); len(keys) != 1 || keys[0].Namespace != "evil" {
		t.Errorf("to be read again: %v", keys)
	}
	restored := policy.Compile(policy.ObjectOf(r.object("evil/p", blocks(60))), r.limits)
	another, newer := *restored, *restored
	another.UID, newer.Version = "another", "newer"
	r.RestorePolicy(&another)
	r.RestorePolicy(&newer)
	if r.allows("evil/web") {
		t.Error("another policy, or another version, must not be restored")
	}
	r.RestorePolicy(restored)
	if !r.allows("evil/web") {
		t.Error("restored, and not allowed")
	}
	r.RestorePolicy(policy.Compile(policy.ObjectOf(r.object("good/p", blocks(20))), r.limits)) // deleted meanwhile
	if n := r.Stats().Policies; n != 1 {
		t.Errorf("%d policies", n)
	}
	r.empty()
}

// Peers that may be anywhere cost every event of every pod, so a namespace has a limit of its own for them.
func TestClusterPeerLimit(t *testing.T) {
	r := newRoom(t, func(l *policy.Limits) { l.NamespaceClusterPeers = 2 }, 3)
	r.policy("evil/a", everyPeer)
	r.policy("evil/b", strings.Replace(everyPeer, "app: peer}}}", "app: peer}}}, {namespaceSelector: {matchLabels: {x: y}}}", 1))
	if !r.allows("evil/web") {
		t.Error("the first policy fits")
	}
	if p := r.policies[Key{Namespace: "evil", Name: "b"}]; !p.isStub || !strings.Contains(p.Problems[0].Message, "namespace-cluster-peers=2") {
		t.Errorf("%+v", p.Policy)
	}
	r.empty()
}

// The oldest pods of a namespace that exceeds its limit are peers, whatever the order of the events. The
// peers of other namespaces in the same group stay.
func TestAddressLimit(t *testing.T) {
	r := newRoom(t, func(l *policy.Limits) { l.NamespaceAddresses = 21 }, 3) // one is the address of web
	r.policy("good/p", everyPeer)
	rnd, sizes := rand.New(rand.NewPCG(1, 2)), map[string]int{}
	for step := range 400 {
		i := 10 + rnd.IntN(30)
		name := fmt.Sprintf("peer-%d", i)
		n := rnd.IntN(6)
		if sizes[name] = n; n == 0 {
			delete(sizes, name)
			r.DeletePod(Key{Namespace: "evil", Name: name})
		} else {
			var addrs []string
			for k := range n {
				addrs = append(addrs, fmt.Sprintf("10.2.%d.%d", i, 2*k+1))
			}
			pod := model.NewPeer("evil/"+name, "app=peer", "net1 default/net "+strings.Join(addrs, " "))
			pod.CreationTimestamp = metav1.Unix(int64(99-i), 0)
			problems := r.UpsertPod(NewPod(pod, "node", r.limits))
			over := 0
			for _, size := range sizes {
				over += size
			}
			if told := fmt.Sprint(problems); strings.Contains(told, "namespace-addresses=21") != (over > 20) {
				t.Fatalf("%d addresses, told %q", over, told)
			}
		}
		want, used := map[string]bool{}, 0
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(sizes))) {
			if used += sizes[name]; used > 20 {
				break
			}
			want[name] = true
		}
		if n := r.Stats().LimitedNamespaces; n != int64(min(1, len(sizes)-len(want))) {
			t.Fatalf("%d namespaces over the limit", n)
		}
		if step%10 != 0 {
			continue
		}
		settle(r.Cache)
		text := renderPod(t, r.Cache, "good/web")
		if !strings.Contains(text, "10.1.0.") {
			t.Fatalf("the group lost the peers of another namespace:\n%s", text)
		}
		for name := range sizes {
			if in := strings.Contains(text, "10.2."+name[5:]+".1"); in != want[name] {
				t.Fatalf("%s is a peer: %v, of %v:\n%s", name, in, sizes, text)
			}
		}
	}
	r.empty()
}

// A table that isolates a pod and allows nothing, for a limit that is not the cache's.
func TestClosed(t *testing.T) {
	r := newRoom(t, func(*policy.Limits) {}, 3)
	r.policy("good/p", everyPeer)
	if !r.allows("good/web") {
		t.Fatal("not allowed")
	}
	id, _ := r.LocalPod(model.KeyOf("good/web"))
	text := render(t, r.Closed(id, "node-memory")[engine.Inet])
	if !strings.Contains(text, `iifname "net1" goto ingress-net1`) || strings.Contains(text, "10.1.0.") || strings.Contains(text, "policy-") {
		t.Errorf("closed:\n%s", text)
	}
	if !strings.Contains(r.told(), "the limit node-memory=300") || r.Stats().LimitedPods != 1 {
		t.Errorf("told %q", r.told())
	}
	if !r.allows("good/web") || r.told() != "" || r.Stats().LimitedPods != 0 {
		t.Errorf("planned again, and told %q", r.told())
	}
	r.empty()
}

// A pod with too many labels is nobody's peer, and every policy selects it.
func TestLabelLimit(t *testing.T) {
	r := newRoom(t, func(l *policy.Limits) { l.PodLabelBytes = 40 }, 0)
	many := "app=peer a=1234567890 b=1234567890 c=1234567890 d=1234567890"
	upsert(r.Cache, model.NewPeer("good/peer", many, "net1 default/net 10.1.0.1"))
	r.policy("good/p", everyPeer)
	if r.allows("good/web") {
		t.Error("a pod with unknown labels is a peer")
	}
	upsert(r.Cache, model.NewPod("evil/web", many, "net1 default/net 10.0.0.1"))
	r.policy("evil/p", `{podSelector: {matchLabels: {no: body}}}`)
	if r.allows("evil/web") || r.Stats().LimitedPods != 1 {
		t.Error("a pod with unknown labels is not isolated")
	}
	upsert(r.Cache, model.NewPod("evil/web", "app=web", "net1 default/net 10.0.0.1"))
	settle(r.Cache)
	if rs := ruleset(r.Cache, "evil/web"); !rs.IsEmpty() || r.Stats().LimitedPods != 0 {
		t.Error("with its labels known again, the pod is still isolated")
	}
	r.empty()
}

// A stub with a long selector or a long list of networks isolates more, and takes no memory for them.
func TestStubIsSmall(t *testing.T) {
	limits := policy.DefaultLimits()
	networks := strings.Repeat("n,", 5) + repeat(30, func(i int) string { return fmt.Sprint("net-", i) })
	p := policy.Compile(policy.Object{
		Key: model.KeyOf("evil/p"), Networks: &networks,
		Spec: []byte(`{"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["` +
			strings.Join(strings.Split(strings.Repeat("v,", 30), ","), `","`) + `x"]}]}}`),
	}, &limits)
	stub := p.Stub(policy.Problem{})
	if !stub.AllNetworks || stub.Networks != nil || !stub.IsFor(model.KeyOf("any/network")) {
		t.Errorf("networks: %v", stub.Networks)
	}
}

// empty removes all objects, and requires that nothing is left of them.
func (r room) empty() {
	r.Helper()
	for _, key := range r.Policies() {
		r.DeletePolicy(key)
	}
	for _, key := range r.Pods() {
		r.DeletePod(key)
	}
	for _, key := range r.Namespaces() {
		r.DeleteNamespace(key.Name)
	}
	r.DeleteNAD(model.KeyOf("net"))
	settle(r.Cache)
	for _, ns := range []string{"good", "evil", ""} {
		r.retire(ns)
	}
	left := map[string]int{
		"namespaces": len(r.namespaces), "networks": len(r.networks), "groups": len(r.groups), "chains": len(r.chains),
		"scopes": len(r.scopes), "network sets": len(r.networkSets), "ports": len(r.ports), "retired": len(r.retired),
		"members": r.members, "namespaces with groups": r.withGroups, "items": r.wanted, "namespaces with policies": r.withPolicies,
		"refetch": len(r.refetch), "targets": len(r.targets),
	}
	for what, n := range left {
		if n != 0 {
			r.Errorf("%d %s are left", n, what)
		}
	}
	if s := r.Stats(); s != (Stats{}) {
		r.Errorf("%+v is left", s)
	}
}
