package engine

import "time"

// batchBudget is the kernel time, estimated by the costs below, from which on Apply splits its work into several batches.
// A batch occupies a core and locks the tables of the namespace. Tenants decide how large it is, and the kernel finds a
// set by its name in a list: 20,000 sets with their rules in one batch took 45 s.
//
// Split by this budget, the first apply of a policy with a set for each rule took (6.18, AMD EPYC):
//
//	sets    one batch   in steps: total, longest batch, batches
//	1,000       68 ms         66 ms          24 ms         8
//	2,000      238 ms        239 ms          26 ms        19
//	3,000      529 ms        528 ms          26 ms        37
//	4,000      926 ms      1,112 ms          53 ms        62
//
// BenchmarkFirstApply measures it again.
const batchBudget = 50 * time.Millisecond

// Kernel time of the parts of a batch, measured on 6.18 with an AMD EPYC and rounded up. BenchmarkKernelTime measures
// them again.
const (
	costSet      = 5 * time.Microsecond   // to make or delete a set
	costSetWalk  = 50 * time.Nanosecond   // for each set of the table, to find a set by its name
	costElement  = 2500 * time.Nanosecond // to add or delete a range or endpoint
	costRange    = 100 * time.Nanosecond  // for each range of an interval set that changes, to rebuild its lookup array
	costChain    = 4 * time.Microsecond   // to make or delete a chain
	costRule     = 18 * time.Microsecond  // to add a rule, with its echo
	costRuleWalk = 12 * time.Nanosecond   // for each rule of the chain, to find a rule by its handle
	costRuleGone = time.Microsecond       // for each rule of a chain that is emptied
)

// Averages for the estimate. A wrong estimate makes batches longer or shorter than the budget, and never wrong.
const (
	setsInRule        = 2   // sets that a rule looks up; the kernel finds each by its name
	elementsInMessage = 800 // ranges that fit a message; the kernel finds the set for each message
)

// prices are the costs in a table that depend on what else is there: the kernel finds sets and tables by name in lists.
type prices struct {
	set   time.Duration // to find a set by its name
	table time.Duration // to find the table, for each message; see table.lookup
}

// pricesIn returns the prices in a table while it has the given number of sets.
func pricesIn(have *table, sets int) prices {
	return prices{set: time.Duration(sets) * costSetWalk, table: have.lookup}
}

func (p prices) newSet() time.Duration    { return p.table + costSet + 2*p.set } // the kernel searches the name twice
func (p prices) deleteSet() time.Duration { return p.table + costSet + p.set }
func (p prices) chain() time.Duration     { return p.table + costChain }
func (p prices) rule() time.Duration      { return p.table + costRule + setsInRule*p.set }

// elements returns the cost of changing so many elements of a set, 0 for no change.
func (p prices) elements(s *Set, changes int) time.Duration {
	if changes == 0 {
		return 0
	}
	messages := time.Duration(changes / elementsInMessage)
	return p.touch(s) + time.Duration(changes)*costElement + messages*(p.table+p.set)
}

// touch returns the part of the cost of elements that does not depend on the number of changes: for an interval set,
// the kernel rebuilds the lookup array of the whole set for a change of any size.
func (p prices) touch(s *Set) time.Duration {
	sum := p.table + p.set
	if e, ok := s.Elements.(Addrs); ok {
		sum += time.Duration(size(e)) * costRange
	}
	return sum
}

// cost estimates the kernel time of the plan in one batch.
func (p *plan) cost(have *table) time.Duration {
	price := pricesIn(have, len(have.ruleset.Sets)+len(p.newSets)/2) // the average during the batch
	sum := time.Duration(len(p.newChains))*price.chain() + time.Duration(len(p.delSets))*price.deleteSet()
	for _, s := range p.newSets {
		sum += price.newSet() + price.elements(s, size(s.Elements))
	}
	for _, c := range p.elements {
		sum += price.elements(c.set, c.len())
	}
	for i := range p.rules {
		passed := time.Duration(len(have.handles[p.rules[i].chain])) // on average, a search by handle passes half of them
		switch p.rules[i].place {
		case allGone:
			sum += price.table + passed*costRuleGone
		case gone:
			sum += price.table + costRuleGone + passed/2*costRuleWalk
		case afterHandle:
			sum += price.rule() + passed/2*costRuleWalk
		default:
			sum += price.rule()
		}
	}
	for _, name := range p.delChains {
		sum += price.chain() + price.table + time.Duration(len(have.handles[name]))*costRuleGone
	}
	return sum
}

// ApplyTime estimates the kernel time to make the tables in a namespace that has none.
func (t *Tables) ApplyTime() (sum time.Duration) {
	none := &table{}
	for _, rs := range t {
		p := makePlan(none, rs, 0)
		sum += p.cost(none)
	}
	return sum
}

// size returns the number of ranges, addresses or endpoints of a set. For a plain set of ports it is the number of
// ports.
func size(e Elements) int {
	switch e := e.(type) {
	case Addrs:
		return e.Addrs.Len(e.Family)
	case Hosts:
		return e.Count
	case Numbers:
		return e.Numbers.Len()
	case Ports:
		if n, plain := e.single(); plain {
			return n
		}
		return e.Ports.Len()
	case Endpoints:
		return e.Endpoints.Len(e.Family)
	}
	return 0
}
