package expr

import (
	"fmt"

	"github.com/google/nftables/expr"
)

// Limit is how many packets may pass in a time.
type Limit struct {
	Over  bool // true of the packets that are too many, not of the others
	Rate  uint32
	Unit  LimitUnit
	Burst uint32 // packets beyond the rate
}

// LimitUnit is a time in seconds.
type LimitUnit uint64

// DefaultBurst is the burst that nft leaves out.
const DefaultBurst = 5

var limitUnits = []struct {
	unit LimitUnit
	name string
}{
	{LimitUnit(expr.LimitTimeSecond), "second"}, {LimitUnit(expr.LimitTimeMinute), "minute"},
	{LimitUnit(expr.LimitTimeHour), "hour"}, {LimitUnit(expr.LimitTimeDay), "day"},
}

// LimitUnitByName is the unit that nft calls so.
func LimitUnitByName(name string) (LimitUnit, bool) {
	for _, u := range limitUnits {
		if u.name == name {
			return u.unit, true
		}
	}
	return 0, false
}

func (u LimitUnit) String() string {
	for _, l := range limitUnits {
		if l.unit == u {
			return l.name
		}
	}
	return "second"
}

// Statement is `limit rate over 10/minute burst 20 packets`.
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
		Exprs: []expr.Any{&expr.Limit{
			Type: expr.LimitTypePkts, Rate: uint64(l.Rate), Over: l.Over, Unit: expr.LimitTime(l.Unit), Burst: l.Burst,
		}},
	}
}
