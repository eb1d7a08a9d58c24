package expr_test

import (
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// ops are both operators.
var ops = []expr.Op{expr.Is, expr.IsNot}

// customVocabulary returns the statements that only custom rules use, in each of their forms.
func customVocabulary() []expr.Statement {
	var v []expr.Statement
	for _, op := range ops {
		v = append(v, addressForms(op)...)
		v = append(v, numberForms(op)...)
		v = append(v,
			expr.InputInterface(op, "net*"),
			expr.OutputInterface(op, "net*"),
			expr.InState(op, expr.StateNew),
			expr.InState(op, expr.StateNew|expr.StateInvalid|expr.StateUntracked),
			expr.MarkMasked(op, 0xff00, 0x1200),
			expr.MarkMasked(op, 0xff000000, 0x12000000),
		)
	}
	return append(v, actionForms()...)
}

func addressForms(op expr.Op) []expr.Statement {
	var v []expr.Statement
	for _, f := range sets.Families {
		addr, whole, odd := netip.MustParseAddr("10.1.2.3"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.1.2.0/31")
		if f == sets.V6 {
			addr, whole, odd = netip.MustParseAddr("fd00::3"), netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("fd00::/10")
		}
		for _, field := range []expr.AddressField{expr.Source(f), expr.Destination(f)} {
			v = append(v,
				field.Range(op, sets.AddrRange{From: addr, To: addr}),
				field.Range(op, sets.AddrRange{From: addr, To: addr.Next()}),
				field.Prefix(op, whole),
				field.Prefix(op, odd),
				field.Prefix(op, netip.PrefixFrom(addr, 0)))
		}
		if op == expr.IsNot { // the matches with Is are in vocabulary
			v = append(v, expr.Source(f).In(op, "peers-"+f.String()), expr.Destination(f).In(op, "peers-"+f.String()))
		}
	}
	return v
}

func numberForms(op expr.Op) []expr.Statement {
	var v []expr.Statement
	for _, t := range []expr.Transport{expr.TCP, expr.UDP, expr.SCTP, expr.AnyTransport} {
		for _, field := range []expr.NumberField{expr.SourcePort(t), expr.DestinationPort(t)} {
			v = append(v, field.Range(op, sets.NumberRange{From: 80, To: 80}), field.Range(op, sets.NumberRange{From: 80, To: 4000}),
				field.In(op, "custom-inet_service"))
		}
	}
	for _, field := range []expr.NumberField{expr.L4Protocol(), expr.ICMPType(sets.V4), expr.ICMPType(sets.V6), expr.Mark()} {
		v = append(v, field.Range(op, sets.NumberRange{From: 3, To: 3}), field.Range(op, sets.NumberRange{From: 200, To: 200}),
			field.Range(op, sets.NumberRange{From: 2, To: 17}), field.In(op, "custom-"+field.Type.String()))
	}
	return v
}

func actionForms() []expr.Statement {
	v := []expr.Statement{
		expr.IsFamily(sets.V4),
		expr.IsFamily(sets.V6),
		expr.Return(),
		expr.Log{Level: expr.LogWarning}.Statement(),
		expr.LogTo(10349, "drop ingress-net1"),
		expr.Log{Level: expr.LogWarning, HasPrefix: true}.Statement(),
		expr.Log{Level: expr.LogWarning, HasPrefix: true, Prefix: "in: "}.Statement(),
	}
	for _, level := range []string{"emerg", "alert", "crit", "err", "notice", "info", "debug"} {
		n, _ := expr.LogLevelByName(level)
		v = append(v, expr.Log{Level: n, HasPrefix: true, Prefix: "in"}.Statement())
	}
	for _, unit := range []string{"second", "minute", "hour", "day"} {
		u, _ := expr.LimitUnitByName(unit)
		v = append(v,
			expr.Limit{Rate: 10, Unit: u, Burst: expr.DefaultBurst}.Statement(),
			expr.Limit{Rate: 4294967295, Unit: u, Burst: 20, Over: true}.Statement())
	}
	for _, kind := range []expr.Rejection{expr.RejectICMPX, expr.RejectICMP, expr.RejectICMPv6} {
		for code := range byte(16) {
			if kind.HasCode(uint32(code)) {
				v = append(v, expr.Reject(kind, code))
			}
		}
	}
	return v
}
