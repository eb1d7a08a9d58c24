package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// errForeign is a table that holds what no Ruleset can say, or more than can be the agent's.
var errForeign = errors.New("foreign")

// errUnstable is a table that others change while it is read.
var errUnstable = errors.New("the table changes while it is read")

// What linux/netfilter/nf_tables.h has and x/sys lacks.
const (
	tableOwner     = 7  // NFTA_TABLE_OWNER
	chainFlags     = 10 // NFTA_CHAIN_FLAGS
	chainBase      = 1  // NFT_CHAIN_BASE
	setExpr        = 17 // NFTA_SET_EXPR
	setExpressions = 18 // NFTA_SET_EXPRESSIONS
)

// readBack reads the table that the kernel holds, compared with the rulesets that are likely to be in it: the first is
// the wanted one. Where nothing is wanted, it only looks whether a table is there. Its cost depends on the table and on
// these rulesets, not on other tables of the namespace. It returns errUnstable if others change anything meanwhile.
func (x *exchange) readBack(t *transport, likely ...Ruleset) (*table, error) {
	before, err := x.generation(t)
	if err != nil {
		return nil, fmt.Errorf("read the table back: %w", err)
	}
	have, err := x.readTable(t, likely)
	if errors.Is(err, errForeign) {
		have, err = &table{foreign: true}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the table back: %w", err)
	}
	have.generation, err = x.generation(t)
	if err == nil && before != have.generation {
		err = errUnstable
	}
	return have, err
}

func (x *exchange) readTable(t *transport, likely []Ruleset) (*table, error) {
	head, err := x.tableHead(t)
	if errors.Is(err, unix.ENOENT) {
		return &table{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := reader{
		exchange: x, transport: t, likely: likely, most: limitsFor(likely),
		rules: map[string][]Rule{}, handles: map[string][]uint64{},
	}
	if likely[0].IsEmpty() || head.use > uint32(r.most.objects) {
		return nil, errForeign // it goes, whatever it holds
	}
	for _, read := range []func() error{r.readSets, r.readRules, r.readChains} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if int(head.use) != len(r.chains)+len(r.sets) {
		return nil, errForeign // empty chains that nobody knows, objects, flow tables
	}
	return &table{
		ruleset:   NewRuleset(r.sets, r.chains),
		handles:   r.handles,
		flags:     head.flags,
		elsewhere: head.flags&ownedOnly != 0 && head.owner != t.port,
	}, nil
}

// reader collects what the kernel says of the table.
type reader struct {
	*exchange
	transport *transport
	likely    []Ruleset
	most      limits
	sets      []*Set
	chains    []*Chain
	rules     map[string][]Rule   // by chain
	handles   map[string][]uint64 // by chain, one for each rule
}

// limits bound how much of the table is read. A table that holds more is foreign: somebody else has filled it, and
// reading all of that would cost as much as he likes.
type limits struct {
	objects  int // chains, sets, and others
	rules    int
	elements int // of all sets
}

// Beyond twice as much as is likely, this is read: after a long time without an agent the table may hold more than the
// policies ask for now. The kernel dumps as much in 10 ms.
const (
	moreObjects  = 1_000
	moreRules    = 4_000
	moreElements = 16_000
)

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

// generation is the number that every batch raises (NFT_MSG_GETGEN).
func (x *exchange) generation(t *transport) (id uint32, err error) {
	x.batch.reset()
	x.batch.begin(unix.NFT_MSG_GETGEN, 0, message{op: "GETGEN"})
	x.batch.end()
	err = x.ask(t, unix.NFT_MSG_NEWGEN, func(a attrs) error {
		id = a.uint32(unix.NFTA_GEN_ID)
		return nil
	})
	return id, err
}

// tableHead is what the kernel says of a table apart from its content.
type tableHead struct {
	use   uint32 // how many objects are in it
	flags uint32
	owner uint32 // the port of its socket, if the flags say that it has one
}

// tableHead asks for the table by name: ENOENT if there is none.
func (x *exchange) tableHead(t *transport) (h tableHead, err error) {
	x.batch.reset()
	x.batch.table(unix.NFT_MSG_GETTABLE, "GETTABLE", 0, 0)
	err = x.ask(t, unix.NFT_MSG_NEWTABLE, func(a attrs) error {
		h = tableHead{use: a.uint32(unix.NFTA_TABLE_USE), flags: a.uint32(unix.NFTA_TABLE_FLAGS), owner: a.uint32(tableOwner)}
		if h.flags&unix.NFT_TABLE_F_DORMANT != 0 {
			return errForeign
		}
		return nil
	})
	return h, err
}

// isIntact reports whether the table still belongs to the socket and holds as many objects as have does. While it
// belongs to the socket, nobody else can change it.
func (x *exchange) isIntact(t *transport, have *table) bool {
	head, err := x.tableHead(t)
	return err == nil && head.flags == have.flags && head.owner == t.port &&
		int(head.use) == len(have.ruleset.Sets)+len(have.ruleset.Chains)
}

// chainsAtOnce is how many chains one send asks for: the answers fit the receive buffer.
const chainsAtOnce = 500

// readChains asks for each chain by name, since the kernel's dump of chains has no filter: root in a pod can have
// 100,000 chains in other tables. A chain that is neither likely, nor has rules, nor is the target of one is missed;
// it is in the table's number of objects all the same.
func (r *reader) readChains() error {
	for names := range slices.Chunk(r.chainNames(), chainsAtOnce) {
		r.batch.reset()
		for _, name := range names {
			r.batch.begin(unix.NFT_MSG_GETCHAIN, 0, message{op: "GETCHAIN", object: name, optional: true})
			r.batch.string(unix.NFTA_CHAIN_TABLE, TableName)
			r.batch.string(unix.NFTA_CHAIN_NAME, name)
			r.batch.end()
		}
		if err := r.ask(r.transport, unix.NFT_MSG_NEWCHAIN, r.readChain); err != nil {
			return err
		}
	}
	if len(r.rules) > 0 {
		return errUnstable // a chain with rules has gone since
	}
	return nil
}

// chainNames returns the names that chains of the table may have.
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

// readChain takes the rules for a chain.
func (r *reader) readChain(a attrs) error {
	c := &Chain{Name: a.string(unix.NFTA_CHAIN_NAME)}
	if hook, ok := a[unix.NFTA_CHAIN_HOOK]; ok {
		h, err := parseAttrs(hook)
		if err != nil {
			return err
		}
		c.Hook = hookOf(h.uint32(unix.NFTA_HOOK_HOOKNUM))
		if c.Hook == HookNone || h.uint32(unix.NFTA_HOOK_PRIORITY) != 0 ||
			a.uint32(unix.NFTA_CHAIN_POLICY) != policyAccept || a.string(unix.NFTA_CHAIN_TYPE) != chainType {
			return errForeign
		}
	}
	if a.uint32(chainFlags)&^chainBase != 0 { // offloaded, or bound to a rule: the kernel refuses to delete such a chain
		return errForeign
	}
	c.Rules = r.rules[c.Name]
	delete(r.rules, c.Name)
	r.chains = append(r.chains, c)
	return nil
}

func hookOf(number uint32) Hook {
	for hook, n := range hookNumbers {
		if n == number {
			return hook
		}
	}
	return HookNone
}

// wanted returns the set of that name that is likely, or nil.
func (r *reader) wanted(name string) *Set {
	for _, rs := range r.likely {
		if s := rs.set(name); s != nil {
			return s
		}
	}
	return nil
}

// set returns the set of that name, or nil.
func (r Ruleset) set(name string) *Set {
	i, ok := slices.BinarySearchFunc(r.Sets, name, func(s *Set, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return nil
	}
	return r.Sets[i]
}
