package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// errForeign is a table that holds what no Ruleset can say.
var errForeign = errors.New("foreign")

// errUnstable is a table that others change while it is read.
var errUnstable = errors.New("the table changes while it is read")

// readTries is how often a table that changes meanwhile is read again.
const readTries = 3

// What linux/netfilter/nf_tables.h has and x/sys lacks.
const (
	tableOwner     = 7  // NFTA_TABLE_OWNER
	chainFlags     = 10 // NFTA_CHAIN_FLAGS
	chainHWOffload = 2  // NFT_CHAIN_HW_OFFLOAD
	setExpr        = 17 // NFTA_SET_EXPR
	setExpressions = 18 // NFTA_SET_EXPRESSIONS
)

// readBack is the table that the kernel holds, as far as it matters to the way to want: where nothing is wanted, only
// whether a table is there.
func (x *exchange) readBack(t *transport, want Ruleset) (*table, error) {
	for try := 1; ; try++ {
		have, err := x.readOnce(t, want)
		if !errors.Is(err, errUnstable) || try == readTries {
			if err != nil {
				err = fmt.Errorf("read the table back: %w", err)
			}
			return have, err
		}
	}
}

func (x *exchange) readOnce(t *transport, want Ruleset) (*table, error) {
	before, err := x.generation(t)
	if err != nil {
		return nil, err
	}
	have, err := x.readTable(t, want)
	if errors.Is(err, errForeign) {
		have, err = &table{foreign: true}, nil
	}
	if err != nil {
		return nil, err
	}
	after, err := x.generation(t)
	if err == nil && before != after {
		err = errUnstable
	}
	have.generation = after
	return have, err
}

func (x *exchange) readTable(t *transport, want Ruleset) (*table, error) {
	head, err := x.tableHead(t)
	if errors.Is(err, unix.ENOENT) {
		return &table{}, nil
	}
	if err != nil {
		return nil, err
	}
	if want.IsEmpty() {
		return nil, errForeign // all the same what it holds: it goes
	}
	r := reader{exchange: x, transport: t, want: want, chains: map[string]*Chain{}, handles: map[string][]uint64{}}
	for _, read := range []func() error{r.readChains, r.readRules, r.readSets} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if int(head.use) != len(r.chains)+len(r.sets) {
		return nil, errForeign // objects or flow tables
	}
	have := r.table()
	have.flags = head.flags
	have.elsewhere = head.flags&ownedOnly != 0 && head.owner != t.port
	return have, nil
}

// reader collects what the dumps say.
type reader struct {
	*exchange
	transport *transport
	want      Ruleset
	chains    map[string]*Chain
	handles   map[string][]uint64
	sets      []*Set
}

func (r *reader) table() *table {
	chains := make([]*Chain, 0, len(r.chains))
	for _, c := range r.chains {
		chains = append(chains, c)
	}
	return &table{ruleset: NewRuleset(r.sets, chains), handles: r.handles}
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

func (r *reader) readChains() error {
	return r.dump(unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, "GETCHAIN", func(a attrs) error {
		if a.string(unix.NFTA_CHAIN_TABLE) != TableName { // this dump has no filter
			return nil
		}
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
		if a.uint32(chainFlags)&chainHWOffload != 0 {
			return errForeign
		}
		r.chains[c.Name], r.handles[c.Name] = c, nil
		return nil
	})
}

func hookOf(number uint32) Hook {
	for hook, n := range hookNumbers {
		if n == number {
			return hook
		}
	}
	return HookNone
}

// readRules takes each rule for the wanted one that does the same, so that the plan finds them equal; another gets a
// text that equals none, so that the plan deletes it.
func (r *reader) readRules() error {
	wanted, err := r.canonical.ofRules(r.want)
	if err != nil {
		return err
	}
	return r.dump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, "GETRULE", func(a attrs) error {
		c, ok := r.chains[a.string(unix.NFTA_RULE_CHAIN)]
		if !ok {
			return errUnstable
		}
		bytecode, err := r.canonical.of(a[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return err
		}
		rule, ok := wanted[ruleKey{bytecode, tlv(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment)}]
		if _, compat := a[unix.NFTA_RULE_COMPAT]; !ok || compat {
			rule = Rule{Statements: []expr.Statement{{Text: "(not ours) " + bytecode}}}
		}
		c.Rules = append(c.Rules, rule)
		r.handles[c.Name] = append(r.handles[c.Name], a.uint64(unix.NFTA_RULE_HANDLE))
		return nil
	})
}

// ruleKey is what must be equal for a rule in the kernel to be one that is wanted.
type ruleKey struct{ bytecode, comment string }

// canonicals are the canonical texts of bytecode that was met before. Pods with the same policies have the same rules.
type canonicals map[string]string

// mostCanonicals bounds what is remembered: then it starts anew.
const mostCanonicals = 10_000

func (known *canonicals) of(payload []byte) (string, error) {
	if text, ok := (*known)[string(payload)]; ok {
		return text, nil
	}
	text, err := expr.Canonical(payload)
	if err != nil {
		return "", err
	}
	if *known == nil || len(*known) >= mostCanonicals {
		*known = canonicals{}
	}
	(*known)[string(payload)] = text
	return text, nil
}

// ofRules are the rules of a ruleset by what must be equal.
func (known *canonicals) ofRules(rs Ruleset) (map[ruleKey]Rule, error) {
	wanted := map[ruleKey]Rule{}
	for _, c := range rs.Chains {
		for _, rule := range c.Rules {
			b, err := expr.Marshal(rule.Statements)
			if err != nil {
				return nil, err
			}
			bytecode, err := known.of(b)
			if err != nil {
				return nil, err
			}
			wanted[ruleKey{bytecode, commentText(rule.Comment)}] = rule
		}
	}
	return wanted, nil
}

// ofTable names the table of a chain, a rule or a set: NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are one number.
const ofTable = unix.NFTA_RULE_TABLE

// dump asks for all objects of one kind in the table and gives the attributes of each to visit.
func (r *reader) dump(get, answer uint16, op string, visit func(attrs) error) error {
	r.batch.reset()
	r.batch.begin(get, unix.NLM_F_DUMP, message{op: op, object: TableName})
	r.batch.string(ofTable, TableName)
	r.batch.end()
	return r.ask(r.transport, answer, visit)
}

// ask sends the one message in the buffer and gives the attributes of each answer of the type to visit.
func (x *exchange) ask(t *transport, answer uint16, visit func(attrs) error) error {
	r := replies{batch: &x.batch}
	err := x.exchange(t, func(b []byte) (last bool, err error) {
		err = eachMessage(b, func(m netlinkMessage) error {
			switch {
			case m.seq != x.batch.seq:
				return nil // to an earlier question
			case m.flags&unix.NLM_F_DUMP_INTR != 0:
				return errUnstable
			case m.typ == unix.NLMSG_ERROR:
				return r.errorMessage(m)
			case m.typ != nftMessage|answer:
				last = m.typ == unix.NLMSG_DONE
				return nil
			}
			last = m.flags&unix.NLM_F_MULTI == 0
			a, err := parseAttrs(m.body[min(len(m.body), nfgenmsgLen):])
			if err != nil {
				return err
			}
			return visit(a)
		})
		return last, err
	})
	if err != nil {
		return err
	}
	return errors.Join(r.refused...)
}

// attrs is a list of attributes by type.
type attrs map[uint16][]byte

func parseAttrs(b []byte) (attrs, error) {
	a := attrs{}
	err := eachAttr(b, func(typ uint16, value []byte) { a[typ] = value })
	return a, err
}

func (a attrs) string(typ uint16) string { return strings.TrimRight(string(a[typ]), "\x00") }

// uint32 is 0 for an attribute that is not there or too short.
func (a attrs) uint32(typ uint16) uint32 {
	if len(a[typ]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

func (a attrs) uint64(typ uint16) uint64 {
	if len(a[typ]) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[typ])
}

// tlv is the text of one entry of userdata as nft writes it: a byte each of type and length, then the value.
func tlv(udata []byte, typ userdata.Type) string {
	for len(udata) >= 2 && len(udata) >= 2+int(udata[1]) {
		value := udata[2 : 2+int(udata[1])]
		if userdata.Type(udata[0]) == typ {
			return strings.TrimRight(string(value), "\x00")
		}
		udata = udata[2+len(value):]
	}
	return ""
}
