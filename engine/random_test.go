package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// randomRuleset is a Ruleset that the kernel takes: chains refer to chains and sets that are there. Its names come from
// a small stock, so that two of them differ in every way that a plan must handle. One in eight is empty.
func randomRuleset(r *rand.Rand) Ruleset {
	if r.IntN(8) == 0 {
		return Ruleset{}
	}
	var ss []*Set
	for i := range 3 {
		if r.IntN(3) == 0 {
			continue
		}
		for _, f := range sets.Families {
			ss = append(ss,
				&Set{Name: fmt.Sprintf("peers-%d-%s", i, f), Comment: fmt.Sprintf("group %d", i), Elements: Addrs{f, randomAddrs(r, f)}},
				&Set{Name: fmt.Sprintf("endpoints-%d-%s", i, f), Elements: Endpoints{f, randomEndpoints(r, f)}})
			if r.IntN(2) == 0 {
				pods := &Set{Name: PodsSet(fmt.Sprintf("peers-%d-%s", i, f)), Comment: fmt.Sprintf("group %d", i), Elements: NewHosts(f, randomAddrs(r, f))}
				ss = append(ss, pods)
			}
		}
	}
	for i := range 3 { // port lists are named by content
		if r.IntN(2) == 0 {
			p := sets.NewPorts(sets.PortRange{Proto: 6, From: uint16(80 * i), To: uint16(80*i + 9)}, sets.PortRange{Proto: 17, From: 0, To: 65535})
			ss = append(ss, &Set{Name: fmt.Sprintf("ports-%d", i), Elements: Ports{p}})
		}
	}
	for i, d := range expr.Datatypes { // and so are lists of numbers
		if r.IntN(2) == 0 {
			ss = append(ss, &Set{Name: fmt.Sprintf("custom-%d", i), Elements: Numbers{d, edgeNumbers(d)}})
		}
	}
	var cc []*Chain
	for _, hook := range []Hook{HookPrerouting, HookOutput} {
		base := &Chain{Name: string(hook), Hook: hook}
		for i := range 4 * r.IntN(2) {
			if r.IntN(4) == 0 {
				continue
			}
			c := randomChain(r, fmt.Sprintf("%s-policy-%d", hook, i), ss)
			cc = append(cc, c)
			base.Rules = append(base.Rules, Rule{Statements: []expr.Statement{expr.IIFName("none0"), expr.Jump(c.Name)}, Comment: c.Name})
		}
		r.Shuffle(len(base.Rules), func(i, j int) { base.Rules[i], base.Rules[j] = base.Rules[j], base.Rules[i] })
		if len(base.Rules) > 0 {
			cc = append(cc, base)
		}
	}
	return NewRuleset(ss, cc)
}

func randomChain(r *rand.Rand, name string, ss []*Set) *Chain {
	c := &Chain{Name: name}
	for range r.IntN(6) {
		var statements []expr.Statement
		if len(ss) > 0 {
			s := ss[r.IntN(len(ss))]
			switch e := s.Elements.(type) {
			case Addrs:
				statements = append(statements, expr.SourceIn(e.Family, s.Name))
			case Hosts:
				statements = append(statements, expr.SourceIn(e.Family, s.Name))
			case Ports:
				statements = append(statements, expr.PortIn(s.Name))
			case Endpoints:
				statements = append(statements, expr.DestinationEndpointIn(e.Family, s.Name))
			case Numbers:
				statements = append(statements, numberMatch(r, e.Type, s.Name))
			}
		}
		// Comments repeat, and so do whole rules.
		c.Rules = append(c.Rules, Rule{Statements: append(statements, expr.Accept()), Comment: fmt.Sprintf("ns/p [%d]", r.IntN(3))})
	}
	return c
}

func numberMatch(r *rand.Rand, d expr.Datatype, set string) expr.Statement {
	field := map[expr.Datatype]expr.NumberField{
		expr.TypeInetProto: expr.L4Protocol(), expr.TypeInetService: expr.SourcePort(expr.AnyTransport),
		expr.TypeICMP: expr.ICMPType(sets.V4), expr.TypeICMPv6: expr.ICMPType(sets.V6), expr.TypeMark: expr.Mark(),
	}[d]
	return field.In(expr.Op(r.IntN(2) == 0), set)
}

// edgeNumbers has both ends of a type, numbers with names, and ranges that a mask can say.
func edgeNumbers(d expr.Datatype) sets.Numbers {
	last := d.Max()
	return sets.NewNumbers(sets.NumberRange{From: 0, To: 3}, sets.NumberRange{From: 6, To: 6}, sets.NumberRange{From: 8, To: 8},
		sets.NumberRange{From: 11, To: 17}, sets.NumberRange{From: 64, To: 127}, sets.NumberRange{From: 135, To: 135},
		sets.NumberRange{From: last - 7, To: last - 4}, sets.NumberRange{From: last - 1, To: last})
}

// edge is where random addresses are: both ends of a family's space and the middle.
func edge(r *rand.Rand, f sets.Family) netip.Addr {
	stock := map[sets.Family][]string{
		sets.V4: {"0.0.0.0", "10.1.2.0", "255.255.255.192"},
		sets.V6: {"::", "fd00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffc0"},
	}[f]
	a := netip.MustParseAddr(stock[r.IntN(len(stock))])
	for range r.IntN(64) {
		a = a.Next()
	}
	return a
}

func randomAddrs(r *rand.Rand, f sets.Family) sets.Addrs {
	var a sets.Addrs
	for range r.IntN(12) {
		from := edge(r, f)
		to := from
		for range r.IntN(5) {
			if next := to.Next(); next.IsValid() {
				to = next
			}
		}
		a = a.Insert(sets.AddrRange{From: from, To: to})
	}
	return a
}

func randomEndpoints(r *rand.Rand, f sets.Family) sets.Endpoints {
	var e sets.Endpoints
	for range r.IntN(8) {
		e = e.Insert(sets.Endpoint{Addr: edge(r, f), Proto: 6, Port: uint16(r.IntN(4))})
	}
	return e
}
