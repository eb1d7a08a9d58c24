package conformance

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Random returns the case of a seed: always the same case.
func Random(seed uint64) Case {
	g := &generator{
		Rand: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), state: State{}, broken: map[types.UID]bool{},
		now: 1_800_000_000, free: map[string][]netip.Addr{}, links: map[Key][]netLink{}, wireOf: map[Key]string{},
	}
	return g.make(fmt.Sprintf("seed-%d", seed))
}

// What names, labels and addresses are made of: few, so that they meet.
var (
	someNamespaces = []string{"a", "b", "c"}
	someKeys       = []string{"app", "tier"}
	someValues     = []string{"x", "y", ""}
	someNetworks   = []Key{
		{Namespace: "a", Name: "one"}, {Namespace: "a", Name: "two"}, {Namespace: "b", Name: "one"}, {Namespace: "b", Name: longName + "n"},
	}
	clusterNetwork = Key{Namespace: "kube-system", Name: "cluster"}
)

// longName is shorter by a character than the longest name.
var longName = strings.Repeat("name.", 50) + "of"

const (
	podCount    = 7
	policyCount = 6
	remoteNode  = "node-2"
)

// generator makes objects and events at random. It knows what it has made, so that events mean something.
type generator struct {
	*rand.Rand
	state  State
	steps  []Step
	events []Event
	uids   int
	wires  []string
	wireOf map[Key]string          // of the networks
	links  map[Key][]netLink       // of the pods: what they are attached to
	free   map[string][]netip.Addr // by wire, those to be taken first at the end
	others []Outsider
	opened int                // times that connections were opened
	broken map[types.UID]bool // pods whose network status or requested networks cannot be read
	now    int64              // seconds since 1970
}

// netLink is an interface of a pod, and the network that it is on.
type netLink struct {
	Link
	network Key
}

func one[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// chance is true n times of 100.
func (g *generator) chance(n int) bool { return g.IntN(100) < n }

func (g *generator) put(o Object) {
	g.happen(Event{Put: o})
}

func (g *generator) remove(ref Ref) {
	if _, ok := g.state[ref]; ok {
		g.happen(Event{Gone: &ref})
	}
}

func (g *generator) happen(e Event) {
	g.events = append(g.events, e)
	g.state = e.applyTo(g.state)
}

// quiet ends a step.
func (g *generator) quiet() {
	g.steps = append(g.steps, Step{Events: g.events})
	g.events = nil
}

func (g *generator) settle() { g.events = append(g.events, Event{Settle: true}) }

func (g *generator) make(name string) Case {
	c := Case{Name: name, Flags: g.flags()}
	for i := range 1 + g.IntN(3) {
		wire := fmt.Sprintf("w%d", i)
		g.wires = append(g.wires, wire)
		g.free[wire] = someAddrs(i)
		g.Shuffle(len(g.free[wire]), func(x, y int) {
			g.free[wire][x], g.free[wire][y] = g.free[wire][y], g.free[wire][x]
		})
		for range 2 {
			c.Outsiders = append(c.Outsiders, Outsider{wire, g.take(wire, true)}, Outsider{wire, g.take(wire, false)})
		}
	}
	for _, n := range append(someNetworks, clusterNetwork) {
		g.wireOf[n] = one(g, g.wires...)
	}
	g.others = c.Outsiders
	g.start()
	for range 3 + g.IntN(6) {
		for range 1 + g.IntN(4) {
			g.event()
		}
		g.quiet()
	}
	c.Steps = g.steps
	return c
}

// someAddrs are the addresses of a wire: some are neighbors, and they are in and out of the blocks that policies name.
func someAddrs(wire int) []netip.Addr {
	var out []netip.Addr
	for _, last := range []string{"0.1", "0.2", "0.3", "0.4", "0.9", "1.1", "1.2", "1.3", "1.255", "2.0", "2.1", "128.7"} {
		out = append(out, netip.MustParseAddr(fmt.Sprintf("10.%d.%s", wire, last)))
	}
	for _, last := range []string{"1", "2", "3", "4", "9", "1:1", "1:2", "1:3", "1:ffff", "2:0", "2:1", "8000:7"} {
		out = append(out, netip.MustParseAddr(fmt.Sprintf("fd00:%d::%s", wire, last)))
	}
	return out
}

// take takes an address of a family off a wire's list. The address given back last is taken first: addresses move at once.
func (g *generator) take(wire string, v4 bool) netip.Addr {
	list := g.free[wire]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Is4() == v4 {
			a := list[i]
			g.free[wire] = slices.Delete(slices.Clone(list), i, i+1)
			return a
		}
	}
	return netip.Addr{}
}

func (g *generator) giveBack(links []netLink) {
	for _, l := range links {
		g.free[l.Wire] = append(g.free[l.Wire], l.Addrs...)
	}
}

// start makes the first objects, in any order.
func (g *generator) start() {
	var makers, policies []func()
	for _, name := range someNamespaces {
		if g.chance(90) {
			makers = append(makers, func() { g.put(g.namespace(name)) })
		}
	}
	for _, n := range someNetworks {
		if g.chance(90) {
			makers = append(makers, func() { g.put(g.nad(n)) })
		}
	}
	for range 2 + g.IntN(podCount-1) {
		makers = append(makers, g.newPod)
	}
	for range 3 + g.IntN(2*policyCount) {
		policies = append(policies, func() { g.put(g.policy()) })
	}
	isEarly := g.chance(40) // connections are open before the first policy
	if !isEarly {
		makers = append(makers, policies...)
	}
	g.Shuffle(len(makers), func(i, j int) { makers[i], makers[j] = makers[j], makers[i] })
	for _, f := range makers {
		f()
	}
	if isEarly {
		for range maxOpened {
			g.openFlows()
		}
		for _, f := range policies {
			f()
		}
	}
	g.quiet()
}

func (g *generator) labels() map[string]string {
	labels := map[string]string{}
	for _, k := range someKeys {
		if g.chance(60) {
			labels[k] = one(g, someValues...)
		}
	}
	return labels
}

func (g *generator) namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: g.labels()}}
}

// nad makes the definition of a network: mostly of a type that policies isolate.
func (g *generator) nad(n Key) *netv1.NetworkAttachmentDefinition {
	configs := []string{
		`{"type": "bridge"}`, `{"type": "bridge"}`, `{"type": "macvlan"}`, `{"plugins": [{"type": "ipvlan"}, {"type": "calico"}]}`,
		`{"type": "calico"}`, `{"plugins": [{"type": "calico"}, {"type": "bridge"}]}`, ``, `{"type": ""}`, `{`,
	}
	config := configs[g.IntN(len(configs))]
	if g.chance(60) {
		config = configs[0]
	}
	nad := &netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name, UID: types.UID(n.String())},
		Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	g.date(nad)
	return nad
}

// date gives a definition its times. An edit may come in the second in which pods are created.
func (g *generator) date(nad *netv1.NetworkAttachmentDefinition) {
	before, ok := g.state[Ref{kindNAD, Key{Namespace: nad.Namespace, Name: nad.Name}}].(*netv1.NetworkAttachmentDefinition)
	if !ok {
		created(nad, g.now+1)
		g.now += 2
		return
	}
	nad.CreationTimestamp, nad.Generation, nad.ManagedFields = before.CreationTimestamp, before.Generation, before.ManagedFields
	if nad.Spec.Config == before.Spec.Config {
		return
	}
	if g.chance(70) {
		g.now++
	}
	edited(nad, g.now)
	if g.chance(70) {
		g.now++
	}
}

// created gives a new definition its times, in seconds since 1970.
func created(nad *netv1.NetworkAttachmentDefinition, at int64) {
	nad.CreationTimestamp, nad.Generation = metav1.Unix(at, 0), 1
	nad.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "create", Time: new(metav1.Unix(at, 0))}}
}

// edited gives a definition that has been changed its times.
func edited(nad *netv1.NetworkAttachmentDefinition, at int64) {
	nad.Generation++
	nad.ManagedFields = append(slices.Clone(nad.ManagedFields[:1]), metav1.ManagedFieldsEntry{Manager: "edit", Time: new(metav1.Unix(at, 0))})
}

// podKeys returns the pods that run, sorted.
func (g *generator) podKeys() []Key {
	return slices.SortedFunc(maps.Keys(g.links), func(a, b Key) int { return cmp.Compare(a.String(), b.String()) })
}
