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

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Random returns the case of a seed. The same seed gives the same case in every run of the same code; a change of the
// generator may change all cases.
// The steps have no expectations: an oracle judges each packet.
func Random(seed uint64) Case {
	g := &generator{
		Rand: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), modes: rand.New(rand.NewPCG(seed, 1)), state: oracle.State{}, broken: map[types.UID]bool{},
		now: 1_800_000_000, free: map[string][]netip.Addr{}, links: map[oracle.Key][]netLink{}, wireOf: map[oracle.Key]string{},
	}
	return g.make(fmt.Sprintf("seed-%d", seed))
}

// The parts of names, labels and addresses. They are few, so that policies, pods and networks often have to do with
// each other.
var (
	someNamespaces = []string{"a", "b", "c"}
	someKeys       = []string{"app", "tier"}
	someValues     = []string{"x", "y", ""}
	someNetworks   = []oracle.Key{
		{Namespace: "a", Name: "one"}, {Namespace: "a", Name: "two"}, {Namespace: "b", Name: "one"}, {Namespace: "b", Name: longName + "n"},
	}
	clusterNetwork = oracle.Key{Namespace: "kube-system", Name: "cluster"}
)

// longName is the beginning of long names. A name has up to 253 characters; two names that begin with longName differ
// only in what follows.
var longName = strings.Repeat("name.", 50) + "of"

const (
	podCount    = 7 // pods at once
	policyCount = 6
	remoteNode  = "node-2" // a node that the agent under test does not run on
)

// generator makes objects and events at random. It keeps the state that its events lead to, so that a later event is
// about objects that exist.
type generator struct {
	*rand.Rand
	// modes decides about audit mode and reports, so that all else in a case is the same as without them: audit mode hides faults.
	modes  *rand.Rand
	state  oracle.State
	steps  []Step
	events []Event
	// The number of the last UID. A UID is never used again, also for a pod of the same name.
	uids   int
	wires  []string
	wireOf map[oracle.Key]string    // of the networks
	links  map[oracle.Key][]netLink // the interfaces of the pods
	// The addresses of each wire that nobody has. The last address of a list is taken first.
	free   map[string][]netip.Addr // by wire, those to be taken first at the end
	others []Outsider
	opened int                // how often connections were opened
	broken map[types.UID]bool // pods whose network status or requested networks cannot be read
	now    int64              // seconds since 1970
}

// netLink is an interface of a pod, with its network.
// The generator needs the network to write annotations.
type netLink struct {
	Link
	network oracle.Key
}

// one returns one of the given values. A value that is given twice is chosen twice as often.
func one[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// chance is true n times of 100.
func (g *generator) chance(n int) bool { return g.IntN(100) < n }

// put creates or replaces an object.
// The object must not change afterwards.
func (g *generator) put(o oracle.Object) {
	g.happen(Event{Put: o})
}

// remove deletes an object, if it exists: a deletion of an object that does not exist would be no event.
func (g *generator) remove(ref oracle.Ref) {
	if _, ok := g.state[ref]; ok {
		g.happen(Event{Gone: &ref})
	}
}

// happen appends an event to the current step, and keeps the state up to date.
func (g *generator) happen(e Event) {
	g.events = append(g.events, e)
	g.state = e.applyTo(g.state)
}

// quiet ends a step: the Player compares after it.
func (g *generator) quiet() {
	g.steps = append(g.steps, Step{Events: g.events})
	g.events = nil
}

// settle makes the Player wait until the agent has done its work, within a step.
func (g *generator) settle() { g.events = append(g.events, Event{Settle: true}) }

// make makes the whole case: flags, wires and addresses first, then the first objects, then some steps of random
// events.
// A restart of the agent may add a step of its own.
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
	// Several networks may be on one wire. Policies are for networks, packets go over wires: the difference must show.
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

// someAddrs returns the addresses of a wire: neighbors, and addresses at the edges of the blocks in [generator.block].
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

// take removes an address of a family from a wire's list, and returns it; the zero Addr if none is left. The address
// that was given back last is taken first, so that addresses often move from a pod to the next pod at once.
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

// giveBack makes the addresses of interfaces free again.
// The next pod may get them at once.
func (g *generator) giveBack(links []netLink) {
	for _, l := range links {
		g.free[l.Wire] = append(g.free[l.Wire], l.Addrs...)
	}
}

// start makes the first objects in random order: a policy may come before its pods, and a pod before its network's
// definition.
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

// labels makes labels that selectors may ask for; an empty value is a value too.
func (g *generator) labels() map[string]string {
	labels := map[string]string{}
	for _, k := range someKeys {
		if g.chance(60) {
			labels[k] = one(g, someValues...)
		}
	}
	return labels
}

// namespace makes a namespace with new labels, or the next version of a namespace.
func (g *generator) namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: g.labels()}}
}

// nad makes the definition of a network. Mostly its type is one that policies isolate; some definitions cannot be read.
func (g *generator) nad(n oracle.Key) *netv1.NetworkAttachmentDefinition {
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

// date gives a definition its times. The agent asks whether a definition was edited after a pod was created, and times
// have a resolution of a second. So an edit may come in the second in which pods are created, or in a second of its
// own.
func (g *generator) date(nad *netv1.NetworkAttachmentDefinition) {
	before, ok := g.state[oracle.Ref{Kind: oracle.KindNAD, Key: oracle.Key{Namespace: nad.Namespace, Name: nad.Name}}].(*netv1.NetworkAttachmentDefinition)
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
// The entry of the creation stays the first.
func edited(nad *netv1.NetworkAttachmentDefinition, at int64) {
	nad.Generation++
	nad.ManagedFields = append(slices.Clone(nad.ManagedFields[:1]), metav1.ManagedFieldsEntry{Manager: "edit", Time: new(metav1.Unix(at, 0))})
}

// podKeys returns the keys of the pods that have not ended, sorted: the order of a map would make cases differ between
// runs.
func (g *generator) podKeys() []oracle.Key {
	return slices.SortedFunc(maps.Keys(g.links), func(a, b oracle.Key) int { return cmp.Compare(a.String(), b.String()) })
}
