package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// model is the kernel's side of a plan in the simplest way: it takes the steps one by one, and refuses what the kernel
// would.
type model struct {
	chains map[string][]modelRule
	hooks  map[string]Hook
	sets   map[string]map[string]bool
	kinds  map[string]string
	next   uint64
}

type modelRule struct {
	handle uint64
	rule   *Rule
}

func (m *model) reset() {
	m.chains, m.hooks = map[string][]modelRule{}, map[string]Hook{}
	m.sets, m.kinds = map[string]map[string]bool{}, map[string]string{}
}

func (m *model) apply(p *plan) error {
	if p.deleteTable || p.create {
		m.reset()
	}
	for _, s := range p.newSets {
		if _, ok := m.sets[s.Name]; ok {
			return fmt.Errorf("set %s is there already", s.Name)
		}
		m.sets[s.Name], m.kinds[s.Name] = map[string]bool{}, typeText(s.Elements)+s.Comment
		for _, e := range elementTexts(s.Elements) {
			m.sets[s.Name][e] = true
		}
	}
	for _, c := range p.elements {
		if err := m.change(c); err != nil {
			return err
		}
	}
	for _, c := range p.newChains {
		if _, ok := m.chains[c.Name]; ok {
			return fmt.Errorf("chain %s is there already", c.Name)
		}
		m.chains[c.Name], m.hooks[c.Name] = nil, c.Hook
	}
	for i := range p.rules {
		if err := m.changeRule(p, &p.rules[i]); err != nil {
			return err
		}
	}
	for _, name := range p.delChains {
		delete(m.chains, name)
		delete(m.hooks, name)
	}
	for _, name := range p.delSets {
		delete(m.sets, name)
	}
	return m.dangling()
}

// dangling is an error if a rule refers to what is not there.
func (m *model) dangling() error {
	for name, rules := range m.chains {
		for _, r := range rules {
			s := r.rule.summary()
			if _, ok := m.chains[s.Chain]; s.Chain != "" && !ok {
				return fmt.Errorf("%s leads to %s, which is not there", name, s.Chain)
			}
			for _, set := range s.Sets {
				if _, ok := m.sets[set]; !ok {
					return fmt.Errorf("%s looks up %s, which is not there", name, set)
				}
			}
		}
	}
	return nil
}

func (m *model) change(c elementChange) error {
	set := m.sets[c.set.Name]
	remove := func(text string) error {
		if !set[text] {
			return fmt.Errorf("no %s in %s", text, c.set.Name)
		}
		delete(set, text)
		return nil
	}
	add := func(text string) error {
		if set[text] {
			return fmt.Errorf("%s is in %s already", text, c.set.Name)
		}
		set[text] = true
		return nil
	}
	for _, step := range []struct {
		elements Elements
		do       func(string) error
	}{
		{Addrs{sets.V4, sets.NewAddrs(c.ranges.Del...)}, remove}, {Addrs{sets.V6, sets.NewAddrs(c.ranges.Del...)}, remove},
		{hosts(sets.V4, c.hosts.Del...), remove}, {hosts(sets.V6, c.hosts.Del...), remove},
		{hosts(sets.V4, c.hosts.Add...), add}, {hosts(sets.V6, c.hosts.Add...), add},
		{Endpoints{sets.V4, sets.NewEndpoints(c.endpoints.Del...)}, remove}, {Endpoints{sets.V6, sets.NewEndpoints(c.endpoints.Del...)}, remove},
		{Addrs{sets.V4, sets.NewAddrs(c.ranges.Add...)}, add}, {Addrs{sets.V6, sets.NewAddrs(c.ranges.Add...)}, add},
		{Endpoints{sets.V4, sets.NewEndpoints(c.endpoints.Add...)}, add}, {Endpoints{sets.V6, sets.NewEndpoints(c.endpoints.Add...)}, add},
	} {
		for _, text := range elementTexts(step.elements) {
			if err := step.do(text); err != nil {
				return err
			}
		}
	}
	return nil
}

// hosts is a hash set of addresses.
func hosts(f sets.Family, list ...netip.Addr) Hosts {
	var a sets.Addrs
	for _, addr := range list {
		a = a.Insert(sets.Single(addr))
	}
	return NewHosts(f, a)
}

func (m *model) changeRule(p *plan, c *ruleChange) error {
	rules, ok := m.chains[c.chain]
	if !ok {
		return fmt.Errorf("no chain %s", c.chain)
	}
	if c.place == allGone {
		m.chains[c.chain] = nil
		return nil
	}
	at := slices.IndexFunc(rules, func(r modelRule) bool { return r.handle == c.handle })
	if at < 0 && (c.place == gone || c.place == afterHandle) {
		return fmt.Errorf("no rule %d in %s", c.handle, c.chain)
	}
	if c.place == gone {
		m.chains[c.chain] = slices.Delete(rules, at, at+1)
		return nil
	}
	switch c.place {
	case atStart:
		at = 0
	case atEnd:
		at = len(rules)
	default:
		at++
	}
	m.next++
	p.handles[c.chain][c.index] = m.next
	m.chains[c.chain] = slices.Insert(rules, at, modelRule{m.next, c.rule})
	return nil
}

// ruleset is what the model holds, for a comparison with what was wanted.
func (m *model) text() map[string][]string {
	out := map[string][]string{}
	for name, rules := range m.chains {
		key := fmt.Sprintf("chain %s %s", name, m.hooks[name])
		out[key] = []string{}
		for _, r := range rules {
			out[key] = append(out[key], r.rule.Text()+" # "+r.rule.Comment)
		}
	}
	for name, elements := range m.sets {
		key := fmt.Sprintf("set %s %s", name, m.kinds[name])
		out[key] = []string{}
		for e := range elements {
			out[key] = append(out[key], e)
		}
		slices.Sort(out[key])
	}
	return out
}

func rulesetText(rs Ruleset) map[string][]string {
	m := model{}
	m.reset()
	p := plan{}
	if !rs.IsEmpty() {
		p = fullPlan(&table{}, rs, 0)
	}
	if err := m.apply(&p); err != nil {
		panic(err)
	}
	return m.text()
}

// TestPlanLeadsToWant plays random rulesets one after another into the model: each plan leads from what is there to
// what is wanted, the handles that are remembered are those of the model, and a second plan is empty.
func TestPlanLeadsToWant(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var m model
		m.reset()
		have := &table{foreign: true}
		for step := range 12 {
			want := randomRuleset(r)
			p := makePlan(have, want, 0)
			if first, between, ok := p.prepare(have); ok {
				if err := m.apply(&first); err != nil {
					t.Fatalf("step %d, sets: %v", step, err)
				}
				have = have.after(&first, between)
			}
			if err := m.apply(&p); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			have = have.after(&p, want)
			if diff := cmp.Diff(rulesetText(want), m.text()); diff != "" {
				t.Fatalf("step %d (-want +got):\n%s", step, diff)
			}
			for chain, handles := range have.handles {
				for i, h := range handles {
					if got := m.chains[chain][i].handle; got != h {
						t.Fatalf("step %d: handle %d of %s is %d, remembered as %d", step, i, chain, got, h)
					}
				}
			}
			if again := makePlan(have, want, 0); !again.isEmpty() {
				t.Fatalf("step %d: a second plan is not empty: %+v", step, again)
			}
		}
	}
}

// TestPlanSendsOnlyTheDifference holds each kind of change to the messages that it needs.
func TestPlanSendsOnlyTheDifference(t *testing.T) {
	rule := func(s ...expr.Statement) Rule { return Rule{Statements: s} }
	peers := func(list ...string) *Set {
		return &Set{Name: "peers", Comment: "c", Elements: Addrs{sets.V4, parseAddrs(list...)}}
	}
	ports := func(name string, port uint16) *Set {
		return &Set{Name: name, Elements: Ports{sets.NewPorts(sets.PortRange{Proto: 6, From: port, To: port})}}
	}
	chain := func(rules ...Rule) *Chain { return &Chain{Name: "policy", Rules: rules} }
	base := NewRuleset([]*Set{peers("10.0.0.1", "10.0.0.5"), ports("ports-80", 80)},
		[]*Chain{chain(rule(expr.SourceIn(sets.V4, "peers"), expr.PortIn("ports-80"), expr.Accept()), rule(expr.Counter(), expr.Drop()))})
	first := makePlan(&table{}, base, 0)
	have := (&table{}).after(&first, base)
	have.handles["policy"] = []uint64{7, 9}

	for _, tt := range []struct {
		name string
		want Ruleset
		ops  []string
	}{
		{"nothing", base, nil},
		{"equal, but made anew", NewRuleset([]*Set{peers("10.0.0.1", "10.0.0.5"), ports("ports-80", 80)}, base.Chains), nil},
		{"one address joins", NewRuleset([]*Set{peers("10.0.0.1", "10.0.0.5", "10.0.0.9"), base.Sets[1]}, base.Chains),
			[]string{"NEWSETELEM peers"}},
		{"one address widens a range", NewRuleset([]*Set{peers("10.0.0.1", "10.0.0.5", "10.0.0.6"), base.Sets[1]}, base.Chains),
			[]string{"DELSETELEM peers", "NEWSETELEM peers"}},
		{"another port list", NewRuleset([]*Set{base.Sets[0], ports("ports-81", 81)},
			[]*Chain{chain(rule(expr.SourceIn(sets.V4, "peers"), expr.PortIn("ports-81"), expr.Accept()), base.Chains[0].Rules[1])}),
			[]string{"NEWSET ports-81", "NEWSETELEM ports-81", "DELRULE policy", "NEWRULE policy", "DELSET ports-80"}},
		{"a rule in the middle", NewRuleset(base.Sets, []*Chain{chain(base.Chains[0].Rules[0], rule(expr.Accept()), base.Chains[0].Rules[1])}),
			[]string{"NEWRULE policy"}},
		{"no table", Ruleset{}, []string{"DELTABLE multi_networkpolicy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := makePlan(have, tt.want, 0)
			var b batch
			if err := b.encode(&p, 1); err != nil {
				t.Fatal(err)
			}
			var ops []string
			for _, m := range b.Labels()[1 : b.Count()-1] {
				ops = append(ops, m.Op+" "+m.Object)
			}
			if diff := cmp.Diff(tt.ops, ops); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			if p.isEmpty() != (len(tt.ops) == 0) {
				t.Errorf("isEmpty is %v", p.isEmpty())
			}
		})
	}
}

// TestPlanReplacesWhatCannotChange: in doubt, and where the kernel cannot change an object in place, the table is
// replaced.
func TestPlanReplacesWhatCannotChange(t *testing.T) {
	base := NewRuleset([]*Set{{Name: "s", Comment: "c", Elements: Addrs{Family: sets.V4}}}, []*Chain{{Name: "c", Rules: []Rule{{}}}})
	known := &table{ruleset: base, handles: map[string][]uint64{"c": {1}}}
	numbers := func(d expr.Datatype, n uint32) *table {
		set := &Set{Name: "s", Elements: Numbers{d, sets.NewNumbers(sets.NumberRange{From: n, To: n})}}
		return &table{ruleset: NewRuleset([]*Set{set}, base.Chains), handles: map[string][]uint64{"c": {1}}}
	}
	unknownHandle := &table{ruleset: base, handles: map[string][]uint64{"c": {0}}}
	for name, tt := range map[string]struct {
		have *table
		want Ruleset
	}{
		"not known":          {&table{foreign: true}, base},
		"another comment":    {known, NewRuleset([]*Set{{Name: "s", Comment: "d", Elements: Addrs{Family: sets.V4}}}, base.Chains)},
		"another kind":       {known, NewRuleset([]*Set{{Name: "s", Comment: "c", Elements: Endpoints{Family: sets.V4}}}, base.Chains)},
		"another family":     {known, NewRuleset([]*Set{{Name: "s", Comment: "c", Elements: Addrs{Family: sets.V6}}}, base.Chains)},
		"other numbers":      {numbers(expr.TypeMark, 1), numbers(expr.TypeMark, 2).ruleset},
		"another type":       {numbers(expr.TypeICMP, 1), numbers(expr.TypeICMPv6, 1).ruleset},
		"another hook":       {known, NewRuleset(base.Sets, []*Chain{{Name: "c", Hook: HookPrerouting, Rules: []Rule{{}}}})},
		"a handle not known": {unknownHandle, NewRuleset(base.Sets, []*Chain{{Name: "c"}})},
	} {
		if p := makePlan(tt.have, tt.want, 0); !p.deleteTable || !p.create {
			t.Errorf("%s: not replaced: %+v", name, p)
		}
	}
}

// TestRenderEmpty: no table is no text.
func TestRenderEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := Render(&b, Inet, Ruleset{}); err != nil || b.Len() != 0 {
		t.Errorf("Render of nothing: %q, %v", b.String(), err)
	}
}
