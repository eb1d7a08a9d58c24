package main

import (
	"context"
	"fmt"
	"strconv"

	"sigs.k8s.io/knftables"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// knftablesWay writes the difference as text for `nft -f -`, with sigs.k8s.io/knftables, in a run for each pod. Like agents of
// this kind, it first looks up the handles of deleted rules by their comments, in another run of nft.
// The figure has the start of nft, which reads the ruleset into its cache, and its parsing of the text. It grows with
// the table, even if the change is small.
type knftablesWay struct {
	*fleet
	world  *world
	nft    []knftables.Interface // by pod: each runs a single nft at a time
	deltas map[[2]state]*delta
	bytes  []uint64 // by pod
}

// newKnftablesWay returns the way. knftables looks for nft and asks for its version here, outside the measured time.
func newKnftablesWay(f *fleet, w *world) (*knftablesWay, error) {
	y := &knftablesWay{
		fleet: f, world: w,
		nft:    make([]knftables.Interface, len(f.hosts)),
		deltas: map[[2]state]*delta{},
		bytes:  make([]uint64, len(f.hosts)),
	}
	err := each(len(f.hosts), func(i int) error {
		// The process of nft belongs to the namespace of the thread that starts it.
		return f.hosts[i].Do(func() (err error) {
			y.nft[i], err = knftables.New(knftables.InetFamily, engine.TableName)
			return err
		})
	})
	return y, err
}

func (*knftablesWay) name() string { return "knftables" }
func (*knftablesWay) close() error { return nil }

func (y *knftablesWay) sent() uint64 {
	var sum uint64
	for _, b := range y.bytes {
		sum += b
	}
	return sum
}

// prepare needs no handles: the event itself looks them up, like an agent of this kind.
func (y *knftablesWay) prepare(e event) error {
	for _, to := range []state{absent, e.from} { // through the empty table, which every state can reach
		if y.at == e.from {
			return nil
		}
		if err := y.change(y.at, to); err != nil {
			return err
		}
	}
	return nil
}

func (y *knftablesWay) run(e event) error {
	if e == restartNoChange {
		return y.inEach(y.readAll)
	}
	return y.change(e.from, e.to)
}

// inEach runs f inside the network namespace of each pod, so that its nft runs there.
func (y *knftablesWay) inEach(f func(pod int, nft knftables.Interface) error) error {
	return each(len(y.hosts), func(i int) error {
		return y.hosts[i].Do(func() error { return f(i, y.nft[i]) })
	})
}

// change writes the difference into each pod, in a transaction of its own.
func (y *knftablesWay) change(from, to state) error {
	step := [2]state{from, to}
	if y.deltas[step] == nil {
		y.deltas[step] = newDelta(y.world.rulesets[from][0], y.world.rulesets[to][0])
	}
	d := y.deltas[step]
	err := y.inEach(func(pod int, nft knftables.Interface) error {
		tx := nft.NewTransaction()
		if to == absent {
			tx.Delete(&knftables.Table{})
		} else {
			if from == absent {
				tx.Add(&knftables.Table{})
			}
			if err := transact(tx, nft, d); err != nil {
				return err
			}
		}
		if tx.NumOperations() == 0 {
			return nil
		}
		y.bytes[pod] += uint64(len(tx.String()))
		return nft.Run(context.Background(), tx)
	})
	if err != nil {
		return fmt.Errorf("knftables: %w", err)
	}
	y.at = to
	return nil
}

// transact adds the change to the transaction.
// The order is that of addDelta.
func transact(tx *knftables.Transaction, nft knftables.Interface, d *delta) error {
	for _, s := range d.newSets {
		addSet(tx, s)
	}
	for _, e := range d.elements {
		for _, r := range e.old {
			tx.Delete(&knftables.Element{Set: e.set, Key: []string{r.String()}})
		}
		for _, r := range e.more {
			tx.Add(&knftables.Element{Set: e.set, Key: []string{r.String()}})
		}
	}
	for _, c := range d.newChains {
		addChain(tx, c)
	}
	for _, c := range d.newChains {
		for i := range c.Rules {
			tx.Add(newRule(c.Name, &c.Rules[i]))
		}
	}
	for _, r := range d.newRules {
		if r.after == 0 {
			tx.Insert(newRule(r.chain, r.rule))
			continue
		}
		rule := newRule(r.chain, r.rule)
		// nft counts rules from 0; the new rule comes behind the rule with the index.
		rule.Index = knftables.PtrTo(r.after - 1)
		tx.Add(rule)
	}
	for _, r := range d.oldRules {
		if err := deleteRule(tx, nft, r); err != nil {
			return err
		}
	}
	for _, c := range d.oldChains {
		tx.Flush(&knftables.Chain{Name: c.Name})
		tx.Delete(&knftables.Chain{Name: c.Name})
	}
	for _, s := range d.oldSets {
		tx.Delete(&knftables.Set{Name: s.Name})
	}
	return nil
}

// addSet adds the set and its elements. nft finds ranges in interval sets only, so plain sets have an element for
// each port.
func addSet(tx *knftables.Transaction, s *engine.Set) {
	set := &knftables.Set{Name: s.Name, Flags: []knftables.SetFlag{knftables.IntervalFlag}}
	if p, ok := s.Elements.(engine.Ports); ok && p.IsPlain() {
		set.Flags = nil
	}
	if s.Comment != "" {
		set.Comment = &s.Comment
	}
	switch e := s.Elements.(type) {
	case engine.Addrs:
		set.Type = "ip" + e.Family.String() + "_addr"
		tx.Add(set)
		for r := range e.Addrs.Ranges(e.Family) {
			tx.Add(&knftables.Element{Set: s.Name, Key: []string{r.String()}})
		}
	case engine.Hosts:
		set.Type, set.Flags = "ip"+e.Family.String()+"_addr", nil
		tx.Add(set)
		for _, r := range rangesOf(s) {
			tx.Add(&knftables.Element{Set: s.Name, Key: []string{r.String()}})
		}
	case engine.Ports:
		set.Type = "inet_service . inet_proto"
		tx.Add(set)
		for r := range e.Ports.Ranges() { // all ports of a world are UDP
			for ; e.IsPlain() && r.From < r.To; r.From++ {
				tx.Add(&knftables.Element{Set: s.Name, Key: []string{fmt.Sprint(r.From), "udp"}})
			}
			if r.From == r.To {
				tx.Add(&knftables.Element{Set: s.Name, Key: []string{fmt.Sprint(r.From), "udp"}})
				continue
			}
			tx.Add(&knftables.Element{Set: s.Name, Key: []string{fmt.Sprintf("%d-%d", r.From, r.To), "udp"}})
		}
	}
}

// addChain adds a base chain, or a regular chain without type, hook and priority.
func addChain(tx *knftables.Transaction, c *engine.Chain) {
	chain := &knftables.Chain{Name: c.Name}
	if c.Hook != engine.HookNone {
		chain.Type = knftables.PtrTo(knftables.FilterType)
		chain.Hook = knftables.PtrTo(knftables.BaseChainHook(c.Hook))
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(strconv.Itoa(int(c.Hook.Priority(engine.Inet)))))
	}
	tx.Add(chain)
}

func newRule(chain string, r *engine.Rule) *knftables.Rule {
	rule := &knftables.Rule{Chain: chain, Rule: r.Text()}
	if r.Comment != "" {
		rule.Comment = &r.Comment
	}
	return rule
}

// deleteRule looks up the handle of the rule by its comment, in a run of nft that lists the chain.
func deleteRule(tx *knftables.Transaction, nft knftables.Interface, r ruleDelta) error {
	rules, err := nft.ListRules(context.Background(), r.chain)
	if err != nil {
		return err
	}
	for _, have := range rules {
		if have.Comment != nil && *have.Comment == r.rule.Comment {
			tx.Delete(&knftables.Rule{Chain: r.chain, Handle: have.Handle})
			return nil
		}
	}
	return fmt.Errorf("no rule %q in %s", r.rule.Comment, r.chain)
}

// readAll reads the whole table, as an agent does at its start.
func (y *knftablesWay) readAll(pod int, nft knftables.Interface) error {
	if _, err := nft.ListRules(context.Background(), ""); err != nil {
		return err
	}
	for _, s := range y.world.rulesets[base][pod].Sets {
		if _, err := nft.ListElements(context.Background(), "set", s.Name); err != nil {
			return err
		}
	}
	return nil
}
