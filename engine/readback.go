//go:build linux

package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// errForeign is the error for a table with objects that a Ruleset cannot have, or with too many objects. The table is
// then replaced and not repaired.
var errForeign = errors.New("foreign")

// errNoTable is the error for a table that does not exist.
var errNoTable = errors.New("no table")

// errUnstable is the error for a change by another process while the table is read.
var errUnstable = errors.New("the table changes while it is read")

// Constants of linux/netfilter/nf_tables.h that x/sys lacks.
const (
	tableOwner     = 7  // NFTA_TABLE_OWNER
	chainFlags     = 10 // NFTA_CHAIN_FLAGS
	chainBase      = 1  // NFT_CHAIN_BASE
	setExpr        = 17 // NFTA_SET_EXPR
	setExpressions = 18 // NFTA_SET_EXPRESSIONS
)

// readBack reads the kernel's table. likely are rulesets that the table probably equals in part, the wanted ruleset
// first: readBack recognizes their rules and sets, and reuses them, pointers included. If the wanted ruleset is empty,
// readBack only looks whether the table exists. The cost depends on the table and on likely, not on other tables of the
// namespace.
//
// If another process changes any table of the namespace at the same time, readBack returns its result with errUnstable.
func (x *exchange) readBack(t *nfnl.Conn, likely ...Ruleset) (*table, error) {
	before, err := x.generation(t)
	if err != nil {
		return nil, fmt.Errorf("read the table back: %w", err)
	}
	// The head tells the number of objects before anything else is read.
	head, lookup, err := x.timedHead(t)
	have := &table{}
	if err == nil {
		have, err = x.readTable(t, head, likely)
	}
	switch {
	case errors.Is(err, errNoTable):
		have = &table{}
	// An object that has disappeared meanwhile (ENOENT) has changed the generation too.
	case errors.Is(err, errForeign), errors.Is(err, errUnstable), errors.Is(err, unix.ENOENT):
		have = &table{foreign: true}
	case err != nil:
		return nil, fmt.Errorf("read the table back: %w", err)
	}
	have.lookup = lookup
	// The generation after the look belongs to the content if it equals the generation before.
	have.generation, err = x.generation(t)
	if err == nil && before != have.generation {
		err = errUnstable
	}
	return have, err
}

// readTable reads sets, rules and chains. The chains come last, because their names come from the rules.
func (x *exchange) readTable(t *nfnl.Conn, head tableHead, likely []Ruleset) (*table, error) {
	r := reader{
		exchange: x, transport: t, likely: likely, most: limitsFor(likely),
		rules: map[string][]Rule{}, handles: map[string][]uint64{},
	}
	if likely[0].IsEmpty() || head.use > uint32(r.most.objects) {
		return nil, errForeign // it is deleted or replaced, whatever it holds
	}
	for _, read := range []func() error{r.readSets, r.readRules, r.readChains} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if int(head.use) != len(r.chains)+len(r.sets) {
		return nil, errForeign // chains that readChains cannot know, objects, flow tables
	}
	return &table{
		ruleset:   NewRuleset(r.sets, r.chains),
		handles:   r.handles,
		flags:     head.flags,
		elsewhere: head.flags&ownedOnly != 0 && head.owner != t.Port(),
	}, nil
}

// reader collects the content of the table. It is used for a single look.
type reader struct {
	*exchange
	transport *nfnl.Conn
	likely    []Ruleset
	most      limits // how much it may still read
	sets      []*Set
	chains    []*Chain
	rules     map[string][]Rule   // rules of each chain in their order; readChain takes them out
	handles   map[string][]uint64 // handles of the rules of each chain in their order
}

// ofTable is the attribute with the table's name: NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are the same number.
const ofTable = unix.NFTA_RULE_TABLE

// dumpSets calls visit with the attributes of each set of the table. The kernel filters this dump by the name of the table
// (nf_tables_dump_sets), as that of rules, but not the dump of chains.
func (r *reader) dumpSets(visit func(nfnl.Attrs) error) error {
	r.batch.reset()
	r.batch.begin(unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, nfnl.Label{Op: "GETSET", Object: TableName})
	r.batch.Text(ofTable, TableName)
	r.batch.End()
	return r.ask(r.transport, unix.NFT_MSG_NEWSET, visit)
}

// dumpRules calls visit with the attributes of each rule of a chain, or of all chains if the name is empty. The kernel filters the
// dump by both names (nf_tables_dump_rules).
func (r *reader) dumpRules(chain string, visit func(nfnl.Attrs) error) error {
	r.batch.reset()
	r.batch.begin(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, nfnl.Label{Op: "GETRULE", Object: TableName})
	r.batch.Text(ofTable, TableName)
	if chain != "" {
		r.batch.Text(unix.NFTA_RULE_CHAIN, chain)
	}
	r.batch.End()
	return r.ask(r.transport, unix.NFT_MSG_NEWRULE, visit)
}

// limits bound how much of the table is read. A table beyond the limits is foreign: another process has filled it, and a
// complete look would take as long as that process wants.
type limits struct {
	objects  int // chains, sets, and others
	rules    int
	elements int // of all sets
}

// The limits are these numbers, and twice the content of the likely rulesets: the table may be older than they are. The
// kernel dumps this number of elements in about 10 ms.
const (
	moreObjects  = 1_000
	moreRules    = 4_000
	moreElements = 16_000
)

// limitsFor returns the limits for a table that is probably one of the rulesets.
// Without likely rulesets, only the fixed parts remain.
func limitsFor(likely []Ruleset) limits {
	most := limits{moreObjects, moreRules, moreElements}
	for _, rs := range likely {
		most.objects += 2 * (len(rs.Sets) + len(rs.Chains))
		for _, c := range rs.Chains {
			most.rules += 2 * len(c.Rules)
		}
		for _, s := range rs.Sets {
			most.elements += 2 * elementCount(s.Elements)
		}
	}
	return most
}

// generation returns the generation of the namespace, which every batch raises (NFT_MSG_GETGEN).
func (x *exchange) generation(t *nfnl.Conn) (id uint32, err error) {
	x.batch.reset()
	x.batch.begin(unix.NFT_MSG_GETGEN, 0, nfnl.Label{Op: "GETGEN"})
	x.batch.End()
	err = x.ask(t, unix.NFT_MSG_NEWGEN, func(a nfnl.Attrs) error {
		id = a.Uint32(unix.NFTA_GEN_ID)
		return nil
	})
	// An answer without a generation must not count as "any generation".
	if err == nil && id == nfnl.AnyGeneration {
		err = nfnl.ErrNoAnswer
	}
	return id, err
}

// tableHead describes a table without its content.
type tableHead struct {
	use   uint32 // number of objects in the table
	flags uint32 // NFT_TABLE_F_*
	owner uint32 // port of the owner's socket, if the flags have NFT_TABLE_F_OWNER
}

// shortLookup is the time below which the search for the table does not matter: a question and its answer take longer.
const shortLookup = 100 * time.Microsecond

// timedHead returns the head and the time that the kernel needs to find the table, which is 0 if it is short. It asks
// again after a long time, since other programs on the machine can make an answer late.
func (x *exchange) timedHead(t *nfnl.Conn) (h tableHead, lookup time.Duration, err error) {
	for range 3 {
		start := time.Now()
		h, err = x.tableHead(t)
		took := time.Since(start)
		if took < shortLookup {
			return h, 0, err
		}
		// The shortest of the times is the best estimate.
		if lookup == 0 || took < lookup {
			lookup = took
		}
	}
	return h, lookup, err
}

// tableHead asks for the table by name. The error is errNoTable if it does not exist.
func (x *exchange) tableHead(t *nfnl.Conn) (h tableHead, err error) {
	x.batch.reset()
	x.batch.table(unix.NFT_MSG_GETTABLE, "GETTABLE", 0, 0)
	err = x.ask(t, unix.NFT_MSG_NEWTABLE, func(a nfnl.Attrs) error {
		h = tableHead{use: a.Uint32(unix.NFTA_TABLE_USE), flags: a.Uint32(unix.NFTA_TABLE_FLAGS), owner: a.Uint32(tableOwner)}
		// A dormant table judges no packet, and no Ruleset can describe it.
		if h.flags&unix.NFT_TABLE_F_DORMANT != 0 {
			return errForeign
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		err = errNoTable
	}
	return h, err
}

// isIntact reports whether the socket still owns the table, and the table still has the number of objects of have. No
// other process can change a table while the socket owns it.
func (x *exchange) isIntact(t *nfnl.Conn, have *table) bool {
	head, err := x.tableHead(t)
	return err == nil && head.flags == have.flags && head.owner == t.Port() &&
		int(head.use) == len(have.ruleset.Sets)+len(have.ruleset.Chains)
}

// chainsAtOnce is the number of chains in a send. Their answers must fit the receive buffer.
const chainsAtOnce = 500

// readChains asks for each chain by name. The kernel's dump of chains has no filter by table, and root in the pod can have
// 100,000 chains in other tables. readChains does not find a chain that is not likely, has no rules and is no target of a
// rule; the table's number of objects reveals such a chain.
func (r *reader) readChains() error {
	for names := range slices.Chunk(r.chainNames(), chainsAtOnce) {
		r.batch.reset()
		for _, name := range names {
			r.batch.begin(unix.NFT_MSG_GETCHAIN, 0, nfnl.Label{Op: "GETCHAIN", Object: name, Optional: true})
			r.batch.Text(unix.NFTA_CHAIN_TABLE, TableName)
			r.batch.Text(unix.NFTA_CHAIN_NAME, name)
			r.batch.End()
		}
		if err := r.ask(r.transport, unix.NFT_MSG_NEWCHAIN, r.readChain); err != nil {
			return err
		}
	}
	if len(r.rules) > 0 {
		return errUnstable // a chain disappeared after the dump of its rules
	}
	return nil
}

// chainNames returns the names of all chains that the table may have.
// Rules may lead to chains without rules, so the targets count too.
func (r *reader) chainNames() []string {
	names := slices.Collect(maps.Keys(r.rules))
	for _, rules := range r.rules {
		for i := range rules {
			if target := rules[i].summary().Chain; target != "" {
				names = append(names, target)
			}
		}
	}
	for _, rs := range r.likely {
		for _, c := range rs.Chains {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// readChain adds a chain with its rules. A base chain must be exactly as newChain makes it.
func (r *reader) readChain(a nfnl.Attrs) error {
	c := &Chain{Name: a.Text(unix.NFTA_CHAIN_NAME)}
	if hook, ok := a[unix.NFTA_CHAIN_HOOK]; ok {
		h, err := nfnl.ParseAttrs(hook)
		if err != nil {
			return err
		}
		c.Hook = hookAt(r.batch.family, h.Uint32(unix.NFTA_HOOK_HOOKNUM), int32(h.Uint32(unix.NFTA_HOOK_PRIORITY)))
		if c.Hook == HookNone || a.Uint32(unix.NFTA_CHAIN_POLICY) != policyAccept || a.Text(unix.NFTA_CHAIN_TYPE) != chainType {
			return errForeign
		}
	}
	if a.Uint32(chainFlags)&^chainBase != 0 { // offloaded, or bound to a rule, so that the kernel refuses to delete it
		return errForeign
	}
	c.Rules = r.rules[c.Name]
	delete(r.rules, c.Name)
	r.chains = append(r.chains, c)
	return nil
}

// hookAt returns the hook of a base chain of the agent, or HookNone for any other place.
func hookAt(f expr.TableFamily, number uint32, priority int32) Hook {
	for hook, p := range places {
		if p.number == number && p.priority[f] == priority {
			return hook
		}
	}
	return HookNone
}

// wanted returns the set with the name in the first likely ruleset that has it, or nil.
func (r *reader) wanted(name string) *Set {
	for _, rs := range r.likely {
		if s := rs.set(name); s != nil {
			return s
		}
	}
	return nil
}
