package engine

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// tinyBudget makes many steps of a small change.
const tinyBudget = 30 * time.Microsecond

const (
	worldAddrs  = 48 // peers, at every other address
	worldPorts  = 3
	worldGroups = 3
)

func worldAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(2 * i)}) }

// randomWorld is a ruleset as a cache makes it: base chains, a chain for each isolated interface, common rules, policies,
// and the sets of all these. Two of them share what they have in common, as versions of a pod's ruleset do.
func randomWorld(r *rand.Rand, before *Ruleset) Ruleset {
	w := worldMaker{r: r, sets: map[string]*Set{}}
	if before != nil {
		w.before = *before
	}
	for group := range worldGroups {
		w.isSplit[group] = r.IntN(2) == 0
	}
	for _, d := range Directions {
		var jumps []Rule
		for _, iface := range []string{"net1", "net2"} {
			if r.IntN(4) == 0 {
				continue
			}
			jumps = append(jumps, Rule{Statements: []expr.Statement{d.OnInterface(iface), expr.Goto(InterfaceChain(d, iface))}})
			w.isolate(d, iface)
		}
		if len(jumps) == 0 {
			continue
		}
		w.common(d)
		for _, h := range d.Hooks() {
			w.chains = append(w.chains, &Chain{Name: string(h), Hook: h, Rules: jumps})
		}
	}
	var list []*Set
	for _, s := range w.sets {
		list = append(list, s)
	}
	return NewRuleset(list, w.chains)
}

type worldMaker struct {
	r      *rand.Rand
	before Ruleset
	sets   map[string]*Set
	chains []*Chain

	isSplit [worldGroups]bool // groups whose pods have a set of their own
}

func (w *worldMaker) isolate(d Direction, iface string) {
	c := &Chain{Name: InterfaceChain(d, iface)}
	add := func(s ...expr.Statement) { c.Rules = append(c.Rules, Rule{Statements: s}) }
	add(expr.Established(), expr.Accept())
	add(expr.Jump(CommonChain(d)))
	for i := range 3 {
		if w.r.IntN(3) > 0 {
			add(expr.Jump(PolicyChain(d, fmt.Sprintf("%016x", i))))
			w.policy(d, i)
		}
	}
	add(expr.Counter(), expr.Drop())
	w.chains = append(w.chains, c)
}

// common has a custom rule that drops, now and then.
func (w *worldMaker) common(d Direction) {
	c := &Chain{Name: CommonChain(d)}
	if w.r.IntN(4) == 0 {
		c.Rules = append(c.Rules, Rule{Statements: []expr.Statement{d.PeerIn(sets.V4, w.addrs("custom-0", true)), expr.Drop()}})
	}
	if w.r.IntN(2) == 0 {
		c.Rules = append(c.Rules, Rule{Statements: []expr.Statement{d.PeerIn(sets.V4, w.addrs(AllowSet(d, SourceField, sets.V4), false)), expr.Accept()}})
	}
	w.chains = append(w.chains, c)
}

func (w *worldMaker) policy(d Direction, i int) {
	name := PolicyChain(d, fmt.Sprintf("%016x", i))
	c := &Chain{Name: name}
	if old := w.before.chain(name); old != nil && w.r.IntN(2) == 0 && w.before.splitsLike(old, w.isSplit) {
		c = old
	} else {
		for range w.r.IntN(4) {
			c.Rules = append(c.Rules, w.rules(d)...)
		}
	}
	for _, r := range c.Rules { // all that an old chain refers to is there, maybe as another version
		for _, set := range r.summary().Sets {
			w.again(set)
		}
	}
	w.chains = append(w.chains, c)
}

// splitsLike reports whether the chain has a rule for the pods of exactly the groups that are split.
func (r Ruleset) splitsLike(c *Chain, isSplit [worldGroups]bool) bool {
	for group := range isSplit {
		name := groupName(group)
		uses := func(set string) func(Rule) bool {
			return func(r Rule) bool { return slices.Contains(r.summary().Sets, set) }
		}
		if slices.ContainsFunc(c.Rules, uses(name)) && slices.ContainsFunc(c.Rules, uses(PodsSet(name))) != isSplit[group] {
			return false
		}
	}
	return true
}

func groupName(group int) string { return GroupSet(PeerGroup, fmt.Sprint(group), sets.V4) }

func (w *worldMaker) rules(d Direction) (rules []Rule) {
	group, port := w.r.IntN(worldGroups), fmt.Sprint(w.r.IntN(worldPorts))
	comment := "ns/p " + fmt.Sprint(w.r.IntN(2))
	if d == Egress && w.r.IntN(3) == 0 {
		name := GroupSet(EndpointGroup, fmt.Sprint(group), sets.V4)
		w.again(name)
		return []Rule{{Statements: []expr.Statement{expr.DestinationEndpointIn(sets.V4, name), expr.Accept()}, Comment: comment}}
	}
	names, ports := []string{groupName(group)}, PortSet(port)
	if w.isSplit[group] {
		names = []string{PodsSet(names[0]), names[0]}
	}
	w.again(ports)
	for _, peers := range names {
		w.again(peers)
		rules = append(rules, Rule{Statements: []expr.Statement{d.PeerIn(sets.V4, peers), expr.PortIn(ports), expr.Accept()}, Comment: comment})
	}
	return rules
}

// again makes the set of that name, if it is not made yet: as it was before, or another version.
func (w *worldMaker) again(name string) {
	old := w.before.set(name)
	switch {
	case w.sets[name] != nil:
	case old != nil && w.r.IntN(2) == 0:
		w.sets[name] = old
	case name[:3] == "por":
		port := uint16(name[len(name)-1] - '0')
		w.sets[name] = &Set{Name: name, Elements: Ports{sets.NewPorts(sets.PortRange{Proto: 6, From: port, To: port})}}
	case name[:3] == "end":
		var list []sets.Endpoint
		for i := range worldAddrs {
			if w.r.IntN(2) == 0 {
				list = append(list, sets.Endpoint{Addr: worldAddr(i), Proto: 6, Port: uint16(w.r.IntN(worldPorts))})
			}
		}
		w.sets[name] = &Set{Name: name, Elements: Endpoints{sets.V4, sets.NewEndpoints(list...)}}
	case strings.HasSuffix(name, podsSuffix):
		w.sets[name] = &Set{Name: name, Elements: NewHosts(sets.V4, w.randomPods())}
	default:
		w.addrs(name, false)
	}
}

func (w *worldMaker) randomPods() (a sets.Addrs) {
	for i := range worldAddrs {
		if w.r.IntN(2) == 0 {
			a = a.Insert(sets.Single(worldAddr(i)))
		}
	}
	return a
}

// addrs makes a set of random peers; an immutable set always has the same peers.
func (w *worldMaker) addrs(name string, immutable bool) string {
	if w.sets[name] == nil {
		r := w.r
		if immutable {
			r = rand.New(rand.NewPCG(1, 1))
		}
		var a sets.Addrs
		for i := range worldAddrs {
			if r.IntN(2) == 0 {
				to := min(i+r.IntN(3), worldAddrs-1) // a block now and then
				a = a.Insert(sets.AddrRange{From: worldAddr(i), To: worldAddr(to)})
			}
		}
		w.sets[name] = &Set{Name: name, Comment: "c", Elements: Addrs{sets.V4, a}}
	}
	return name
}

// otherMembers is the ruleset with other peers in it, and now and then one policy less.
func otherMembers(r *rand.Rand, before Ruleset) Ruleset {
	w := worldMaker{r: r, before: before, sets: map[string]*Set{}}
	for _, s := range before.Sets {
		w.again(s.Name)
	}
	var list []*Set
	for _, s := range w.sets {
		list = append(list, s)
	}
	for _, c := range before.Chains {
		if name, _ := ParseChain(c.Name); name.Kind == KindInterface && len(c.Rules) > 3 && r.IntN(4) == 0 {
			c = &Chain{Name: c.Name, Rules: slices.Delete(slices.Clone(c.Rules), 2, 3)}
		}
		w.chains = append(w.chains, c)
	}
	return NewRuleset(list, w.chains)
}

// resized is the ruleset with other members in a group, which gets a second set, or loses it. The packets that the group
// allows are mostly the same.
func resized(r *rand.Rand, before Ruleset) Ruleset {
	w := worldMaker{r: r, before: before, sets: map[string]*Set{}}
	for _, s := range before.Sets {
		w.sets[s.Name] = s
	}
	for _, c := range before.Chains {
		w.chains = append(w.chains, &Chain{Name: c.Name, Hook: c.Hook, Rules: slices.Clone(c.Rules)})
	}
	for _, group := range r.Perm(worldGroups) {
		if name := groupName(group); w.sets[name] != nil {
			w.resize(name)
			break
		}
	}
	return NewRuleset(slices.Collect(maps.Values(w.sets)), w.chains)
}

func (w *worldMaker) resize(name string) {
	one, podsName := w.sets[name], PodsSet(name)
	members := one.Elements.(Addrs).Addrs
	second := w.sets[podsName]
	if second != nil {
		members = members.Union(second.Elements.(Hosts).Addrs)
	}
	come, gone := w.randomPods(), w.randomPods()
	members = members.Union(come.Difference(w.randomPods())).Difference(gone.Difference(w.randomPods()))
	blocks := members
	delete(w.sets, podsName)
	if second == nil {
		blocks = members.Difference(w.randomPods())
		w.sets[podsName] = &Set{Name: podsName, Elements: NewHosts(sets.V4, members.Difference(blocks))}
	}
	w.sets[name] = one.like(Addrs{sets.V4, blocks})
	for _, c := range w.chains {
		var rules []Rule
		for _, rule := range c.Rules {
			looked := rule.summary().Sets
			switch {
			case slices.Contains(looked, podsName):
				continue
			case slices.Contains(looked, name) && second == nil:
				d := Ingress
				if strings.HasPrefix(c.Name, Egress.String()) {
					d = Egress
				}
				pods := rule
				pods.Statements = append([]expr.Statement{d.PeerIn(sets.V4, podsName)}, rule.Statements[1:]...)
				rules = append(rules, pods)
			}
			rules = append(rules, rule)
		}
		c.Rules = rules
	}
}

// worldPackets is one packet each of every connection that a rule can tell from others.
func worldPackets() (list []expr.Packet) {
	for i := range worldAddrs {
		for port := range uint16(worldPorts) {
			for _, iface := range []string{"net1", "net2"} {
				in := expr.Packet{
					Family: sets.V4, Source: worldAddr(i), Destination: netip.AddrFrom4([4]byte{10, 1, 1, 1}), Input: iface,
					Protocol: 6, DestinationPort: port, State: expr.StateNew,
				}
				out := in
				out.Source, out.Destination, out.Input, out.Output = in.Destination, in.Source, "", iface
				list = append(list, in, out)
			}
		}
	}
	return list
}

func allPass(t *testing.T, rs Ruleset, packets []expr.Packet) []bool {
	t.Helper()
	list := make([]bool, len(packets))
	for i, p := range packets {
		list[i] = passes(t, rs, p)
	}
	return list
}

// TestStepsAreSafe plays random changes into the model, in many steps. After each step no packet passes that passes
// neither before the change nor after it, and all pass that pass before and after. Each step is a batch that the kernel
// takes, and a small batch, apart from the batch that changes chains in force. The last step leads to the wanted ruleset.
func TestStepsAreSafe(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	packets := worldPackets()
	most, separated, moved := 0, 0, 0
	for round := range 60 {
		var m model
		m.reset()
		have := &table{}
		before := randomWorld(r, nil)
		if round%3 == 0 { // a way that ended early
			m.play(t, &have, before, tinyBudget, r.IntN(60))
			before = have.ruleset
		} else {
			m.play(t, &have, before, time.Hour, 60)
		}
		want := randomWorld(r, &before)
		onlyResized, budget := round%4 == 1, tinyBudget
		switch {
		case onlyResized:
			want = resized(r, before)
			budget = []time.Duration{tinyBudget, time.Hour}[r.IntN(2)]
		case round%2 == 0:
			want = otherMembers(r, before)
		}
		old, wanted := allPass(t, before, packets), allPass(t, want, packets)
		n, large := 0, 0
		path := append(moves(before, want), want)
		moved += len(path) - 1
		for next := range stepsOf(&have, path, budget) {
			p := makePlan(have, next, 0)
			if p.cost(have) > 2*tinyBudget {
				large++
			}
			seen := []Ruleset{next}
			if onlyResized && round%3 > 0 { // packets on their way meet rules from before the step and sets from behind it, or the reverse
				last := have.ruleset
				seen = append(seen, Ruleset{override(last.Sets, next.Sets, setName), last.Chains}, Ruleset{override(next.Sets, last.Sets, setName), next.Chains})
			}
			m.step(t, &have, &p, next)
			for _, rs := range seen {
				for i, passes := range allPass(t, rs, packets) {
					switch {
					case passes && !old[i] && !wanted[i]:
						t.Fatalf("step %d lets pass what neither does: %+v\n%s\n-> %s", n, packets[i], rendered(t, before), rendered(t, want))
					case !passes && old[i] && wanted[i]:
						t.Fatalf("step %d drops what both let pass: %+v\n%s\n-> %s", n, packets[i], rendered(t, before), rendered(t, want))
					}
				}
			}
			n++
		}
		if diff := cmp.Diff(rulesetText(want), m.text()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if budget == tinyBudget && large > len(path) {
			t.Fatalf("%d of %d steps are large", large, n)
		}
		most = max(most, n)
		separated += len(separable(before, want))
	}
	if most < 20 || separated == 0 || moved == 0 {
		t.Errorf("not split: at most %d steps, %d sets separable, %d rulesets on the way", most, separated, moved)
	}
}

// stepsOf returns the steps by way of all rulesets of a path.
func stepsOf(have **table, path []Ruleset, budget time.Duration) iter.Seq[Ruleset] {
	return func(yield func(Ruleset) bool) {
		for _, via := range path {
			for next := range steps(*have, via, 0, budget) {
				if !yield(next) {
					return
				}
			}
		}
	}
}

// play brings the model to a ruleset, in at most so many steps.
func (m *model) play(t *testing.T, have **table, want Ruleset, budget time.Duration, most int) {
	t.Helper()
	for next := range steps(*have, want, 0, budget) {
		if most--; most < 0 {
			return
		}
		p := makePlan(*have, next, 0)
		m.step(t, have, &p, next)
	}
}

func (m *model) step(t *testing.T, have **table, p *plan, next Ruleset) {
	t.Helper()
	if err := m.apply(p); err != nil {
		t.Fatal(err)
	}
	*have = (*have).after(p, next)
	if diff := cmp.Diff(rulesetText(next), m.text()); diff != "" {
		t.Fatalf("(-next +got):\n%s", diff)
	}
}

// TestStepsFromForeign: a table that may let everything pass is closed by the first batch, which is small, and opened only
// for what is wanted.
func TestStepsFromForeign(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	packets := worldPackets()
	for range 20 {
		var m model
		m.reset()
		have := &table{foreign: true}
		want := randomWorld(r, nil)
		for want.IsEmpty() {
			want = randomWorld(r, nil)
		}
		wanted := allPass(t, want, packets)
		n := 0
		for next := range steps(have, want, 0, tinyBudget) {
			p := makePlan(have, next, 0)
			if n == 0 && (!p.deleteTable || !p.create || len(p.rules) > 2*len(Directions)*4) {
				t.Fatalf("the first batch is not one that closes the table: %+v", p)
			}
			m.step(t, &have, &p, next)
			for i, passes := range allPass(t, next, packets) {
				if passes && !wanted[i] {
					t.Fatalf("step %d lets pass what is not wanted: %+v", n, packets[i])
				}
			}
			n++
		}
		if diff := cmp.Diff(rulesetText(want), m.text()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

// TestLockdown: what is left of a chain accepts nothing that the whole chain drops.
func TestLockdown(t *testing.T) {
	goTo := func(name string) Rule {
		return Rule{Statements: []expr.Statement{expr.IIFName("net1"), expr.Goto(name)}}
	}
	rule := func(s ...expr.Statement) Rule { return Rule{Statements: s} }
	base := &Chain{Name: "prerouting", Hook: HookPrerouting, Rules: []Rule{goTo("ingress-net1")}}
	established, drop := rule(expr.Established(), expr.Accept()), rule(expr.Counter(), expr.Drop())
	want := NewRuleset(nil, []*Chain{base, {Name: "ingress-net1", Rules: []Rule{
		established, rule(expr.Jump("custom")), rule(expr.ICMP(sets.V4), expr.Accept()), drop,
	}}, {Name: "custom"}})
	closed, ok := lockdown(want)
	locked := NewRuleset(nil, []*Chain{base, {Name: "ingress-net1", Rules: []Rule{established, drop}}})
	if diff := cmp.Diff(rulesetText(locked), rulesetText(closed)); !ok || diff != "" {
		t.Errorf("%v (-want +got):\n%s", ok, diff)
	}
	// In audit mode all packets pass, and a rule that is left out may have dropped none.
	audited := &Chain{Name: "ingress-net1", Rules: []Rule{established, rule(expr.Jump("policy")), rule(expr.Counter(), expr.Accept())}}
	closed, ok = lockdown(NewRuleset(nil, []*Chain{base, audited, {Name: "policy"}}))
	open := NewRuleset(nil, []*Chain{base, {Name: "ingress-net1", Rules: []Rule{established}}})
	if diff := cmp.Diff(rulesetText(open), rulesetText(closed)); !ok || diff != "" {
		t.Errorf("%v (-want +got):\n%s", ok, diff)
	}
	for name, chains := range map[string][]*Chain{
		"no base chain":  {{Name: "ingress-net1", Rules: []Rule{drop}}},
		"ends open":      {base, {Name: "ingress-net1", Rules: []Rule{established}}},
		"jumps":          {{Name: "prerouting", Hook: HookPrerouting, Rules: []Rule{rule(expr.Jump("c"))}}, {Name: "c", Rules: []Rule{drop}}},
		"no such chain":  {base},
		"no rule at all": {base, {Name: "ingress-net1"}},
	} {
		if closed, ok := lockdown(NewRuleset(nil, chains)); ok {
			t.Errorf("%s: %+v", name, closed)
		}
	}
}
