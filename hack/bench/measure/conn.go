package main

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// connName is the name of the way that uses google/nftables.
const connName = "google/nftables"

// connWay writes the difference with the Conn of github.com/google/nftables, in a batch for each pod on a socket that stays open.
// The difference and the handles of rules are known before the event, since an agent of this kind can remember them.
// It measures the encoding, the system calls and the reading of answers by that library. An agent that computes the
// difference or asks for handles at each event takes longer than the figure.
type connWay struct {
	*fleet
	world *world
	conns []*nftables.Conn // by pod; nil: not open
	// deltas has each difference that was needed so far, by from and to
	deltas  map[[2]state]*delta
	handles []handles // by pod
}

// newConnWay returns the way. It opens no socket before the first event.
func newConnWay(f *fleet, w *world) *connWay {
	return &connWay{
		fleet: f, world: w,
		conns:   make([]*nftables.Conn, len(f.hosts)),
		deltas:  map[[2]state]*delta{},
		handles: make([]handles, len(f.hosts)),
	}
}

func (*connWay) name() string { return connName }

// sent returns 0: a Conn does not tell the number of bytes.
func (*connWay) sent() uint64 { return 0 }

// prepare brings the tables to the state from which the event starts, and reads the handles that the event needs. A
// row of events that goes back and forth needs no bringing.
func (y *connWay) prepare(e event) error {
	for _, to := range []state{absent, e.from} { // through the empty table, which every state can reach
		if y.at == e.from {
			break
		}
		if err := errors.Join(y.plan(y.at, to), y.change(y.at, to)); err != nil {
			return err
		}
	}
	if err := y.plan(e.from, e.to); err != nil {
		return err
	}
	if e.reopen {
		return y.close()
	}
	return nil
}

// plan opens the sockets, and finds the difference and the handles of rules that it needs.
// The result is in deltas and handles. Handles are read anew each time, since the kernel gives a rule that was
// deleted and added again a new handle.
func (y *connWay) plan(from, to state) error {
	step := [2]state{from, to}
	if y.deltas[step] == nil {
		y.deltas[step] = newDelta(y.world.rulesets[from][0], y.world.rulesets[to][0])
	}
	// Only rules need handles: elements, sets and chains are deleted by name.
	if err := y.open(); err != nil || from == absent || !y.deltas[step].hasRules() {
		return err
	}
	return each(len(y.conns), func(i int) error {
		y.handles[i] = handles{}
		for _, c := range y.world.rulesets[from][i].Chains {
			rules, err := y.conns[i].GetRules(connTable, connChain(c))
			if err != nil {
				return err
			}
			for _, r := range rules {
				y.handles[i][c.Name] = append(y.handles[i][c.Name], r.Handle)
			}
		}
		return nil
	})
}

// run carries out the event. A restart without changes only reads the tables: the comparison that such an agent would
// make with the result is not measured.
func (y *connWay) run(e event) error {
	if e.reopen {
		if err := y.open(); err != nil {
			return err
		}
	}
	if e == restartNoChange {
		return each(len(y.conns), y.readAll)
	}
	return y.change(e.from, e.to)
}

// change writes the prepared difference into the table of each pod, with as many threads as cores.
func (y *connWay) change(from, to state) error {
	d := y.deltas[[2]state{from, to}]
	err := each(len(y.conns), func(i int) error {
		c := y.conns[i]
		switch {
		case to == absent:
			// With the table, the kernel deletes all its sets, chains and rules.
			c.DelTable(connTable)
			return c.Flush()
		case from == absent:
			c.CreateTable(connTable)
		}
		if err := addDelta(c, d, y.handles[i]); err != nil {
			return err
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("%s: %w", connName, err)
	}
	y.at = to
	return nil
}

var connTable = &nftables.Table{Name: engine.TableName, Family: nftables.TableFamilyINet}

// addDelta adds the change to the next batch.
// The order is that of the dependencies: sets before the rules that look them up, chains before the rules that jump
// to them, and old rules before the chains and sets that they use.
func addDelta(conn *nftables.Conn, d *delta, h handles) error {
	for _, s := range d.newSets {
		set, elements := connSet(s)
		if err := conn.AddSet(set, elements); err != nil {
			return err
		}
	}
	for _, e := range d.elements {
		set := &nftables.Set{Table: connTable, Name: e.set}
		if err := conn.SetDeleteElements(set, connElements(addressElements(e.old, e.isHash))); err != nil {
			return err
		}
		if err := conn.SetAddElements(set, connElements(addressElements(e.more, e.isHash))); err != nil {
			return err
		}
	}
	for _, c := range d.newChains {
		// All chains come before all rules, since a rule may jump to a chain that comes later in the list.
		conn.AddChain(connChain(c))
	}
	for _, c := range d.newChains {
		for i := range c.Rules {
			conn.AddRule(connRule(c.Name, &c.Rules[i]))
		}
	}
	for _, r := range d.newRules {
		// Without a position, InsertRule puts the rule at the start of the chain. AddRule puts it behind the rule of
		// the handle Position.
		rule := connRule(r.chain, r.rule)
		if r.after == 0 {
			conn.InsertRule(rule)
			continue
		}
		rule.Position = h[r.chain][r.after-1]
		conn.AddRule(rule)
	}
	for _, r := range d.oldRules {
		old := &nftables.Rule{Table: connTable, Chain: &nftables.Chain{Name: r.chain}, Handle: h[r.chain][r.after]}
		if err := conn.DelRule(old); err != nil {
			return err
		}
	}
	for _, c := range d.oldChains {
		// The kernel refuses to delete a chain while a rule jumps to it.
		conn.FlushChain(connChain(c))
		conn.DelChain(connChain(c))
	}
	for _, s := range d.oldSets {
		conn.DelSet(&nftables.Set{Table: connTable, Name: s.Name})
	}
	return nil
}

// connChain returns the chain in the form of google/nftables. A chain without a hook is regular: rules jump to it.
func connChain(c *engine.Chain) *nftables.Chain {
	chain := &nftables.Chain{Table: connTable, Name: c.Name}
	if c.Hook != engine.HookNone {
		accept := nftables.ChainPolicyAccept
		chain.Type, chain.Policy = nftables.ChainTypeFilter, &accept
		chain.Hooknum = nftables.ChainHookRef(nftables.ChainHook(c.Hook.Number()))
		chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Hook.Priority(engine.Inet)))
	}
	return chain
}

// connRule returns the rule with the same expressions as the engine's, so that only the way into the kernel differs.
func connRule(chain string, r *engine.Rule) *nftables.Rule {
	rule := &nftables.Rule{Table: connTable, Chain: &nftables.Chain{Table: connTable, Name: chain}}
	for _, s := range r.Statements {
		rule.Exprs = append(rule.Exprs, s.Exprs...)
	}
	if r.Comment != "" {
		rule.UserData = userdata(0, append([]byte(r.Comment), 0))
	}
	return rule
}

// connPorts is the key of a set of ports: a port and a protocol.
var connPorts = nftables.MustConcatSetType(nftables.TypeInetService, nftables.TypeInetProto)

// connSet returns the set and its elements in the form of google/nftables: an interval set of addresses, a hash set
// of addresses, or a set of ports, which has ranges unless it is plain.
func connSet(s *engine.Set) (*nftables.Set, []nftables.SetElement) {
	key := map[sets.Family]nftables.SetDatatype{sets.V4: nftables.TypeIPAddr, sets.V6: nftables.TypeIP6Addr}
	set := &nftables.Set{Table: connTable, Name: s.Name, Comment: s.Comment}
	switch e := s.Elements.(type) {
	case engine.Addrs:
		set.KeyType, set.Interval, set.KeyByteOrder = key[e.Family], true, binaryutil.BigEndian
	case engine.Hosts:
		set.KeyType = key[e.Family]
	case engine.Ports:
		set.KeyType, set.Interval, set.Concatenation = connPorts, !e.IsPlain(), !e.IsPlain()
		return set, connElements(portElements(s))
	}
	return set, connElements(addressElements(rangesOf(s), isHash(s)))
}

// connElements converts elements. A range of an interval set is two elements: its start, and the first key behind it.
func connElements(list []element) []nftables.SetElement {
	elements := make([]nftables.SetElement, len(list))
	for i, e := range list {
		elements[i] = nftables.SetElement{Key: e.key, KeyEnd: e.keyEnd, IntervalEnd: e.isEnd}
	}
	return elements
}

// readAll reads the whole table of a pod, as an agent does at its start.
func (y *connWay) readAll(pod int) error {
	c := y.conns[pod]
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if _, err := c.GetRules(connTable, chain); err != nil {
			return err
		}
	}
	// The sets come behind the rules; their elements are a request for each set.
	all, err := c.GetSets(connTable)
	if err != nil {
		return err
	}
	for _, set := range all {
		if _, err := c.GetSetElements(set); err != nil {
			return err
		}
	}
	return nil
}

// open opens a socket that stays open, in the network namespace of each pod that has none.
func (y *connWay) open() error {
	return each(len(y.conns), func(i int) error {
		if y.conns[i] != nil {
			return nil
		}
		return y.hosts[i].Do(func() (err error) {
			y.conns[i], err = nftables.New(nftables.AsLasting())
			return err
		})
	})
}

// close closes all sockets. An event with reopen opens them again inside its measured time.
func (y *connWay) close() error {
	var errs []error
	for i, c := range y.conns {
		if c != nil {
			errs = append(errs, c.CloseLasting())
			y.conns[i] = nil
		}
	}
	return errors.Join(errs...)
}
