package expr

import (
	"fmt"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"
)

// Limit is a rate limit (a token bucket). It matches packets up to the rate, or with Over the packets beyond it. Each
// rule has a bucket of its own in the kernel, shared by all packets that reach it.
type Limit struct {
	Over  bool   // match the packets that exceed the limit
	Rate  uint32 // packets for each unit
	Unit  LimitUnit
	Burst uint32 // packets that may exceed the rate: the size of the bucket
}

// LimitUnit is the unit of time of a limit, in seconds.
type LimitUnit uint64

// DefaultBurst is the burst that nft takes if a rule has none, and that it does not print.
const DefaultBurst = 5

// limitUnits are the units that nft has for rates of packets, except weeks, which custom rules do not have.
var limitUnits = []struct {
	unit LimitUnit
	name string
}{
	{LimitUnit(bytecode.LimitTimeSecond), "second"}, {LimitUnit(bytecode.LimitTimeMinute), "minute"},
	{LimitUnit(bytecode.LimitTimeHour), "hour"}, {LimitUnit(bytecode.LimitTimeDay), "day"},
}

// LimitUnitByName returns the unit with the name that nft uses.
func LimitUnitByName(name string) (LimitUnit, bool) {
	for _, u := range limitUnits {
		if u.name == name {
			return u.unit, true
		}
	}
	return 0, false
}

// String returns the name of the unit. LimitUnit values are made by LimitUnitByName, so other numbers do not occur.
func (u LimitUnit) String() string {
	for _, l := range limitUnits {
		if l.unit == u {
			return l.name
		}
	}
	return "second"
}

// Statement returns `limit rate over 10/minute burst 20 packets`.
func (l Limit) Statement() Statement {
	over, burst := "", ""
	if l.Over {
		over = "over "
	}
	if l.Burst != DefaultBurst {
		burst = fmt.Sprintf(" burst %d packets", l.Burst)
	}
	return Statement{
		Text: fmt.Sprintf("limit rate %s%d/%s%s", over, l.Rate, l.Unit, burst),
		Exprs: []bytecode.Any{&bytecode.Limit{
			Type: bytecode.LimitTypePkts, Rate: uint64(l.Rate), Over: l.Over, Unit: bytecode.LimitTime(l.Unit), Burst: l.Burst,
		}},
	}
}
