package engine

import (
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// batchBegin is the message that the kernel refuses when the generation is another one.
const batchBegin = "BATCH_BEGIN"

// message says what one message of a batch is about, for errors and for the handles that the kernel gives to rules.
type message struct {
	op       string // NEWRULE, DELSETELEM, …
	object   string // the chain or set
	rule     *ruleChange
	optional bool // a question for an object that may be missing
}

// batch is a plan as netlink messages. Message number i has sequence number i+1.
type batch struct {
	wire
	messages []message
	echoes   int // new rules, whose handles the kernel answers
}

func (b *batch) reset() {
	b.wire.reset()
	clear(b.messages)
	b.messages = b.messages[:0]
	b.echoes = 0
}

// encode writes the whole plan between NFNL_MSG_BATCH_BEGIN and _END. The kernel takes it only if the generation is
// still that number (NFNL_BATCH_GENID), else it says ERESTART at once: a difference is never applied to what it was not
// made from. Only the last message asks for an acknowledgement: a
// batch goes in as a whole or not at all, and a message that fails reports itself.
func (b *batch) encode(p *plan, generation uint32) error {
	b.reset()
	b.control(unix.NFNL_MSG_BATCH_BEGIN, batchBegin)
	if generation != unknownGeneration {
		b.uint32(unix.NFNL_BATCH_GENID, generation)
	}
	b.end()
	if p.anyway { // so that there is one to delete; one that is there stays as it is
		b.table(unix.NFT_MSG_NEWTABLE, "NEWTABLE", unix.NLM_F_CREATE, 0)
	}
	if p.deleteTable {
		b.table(unix.NFT_MSG_DELTABLE, "DELTABLE", 0, 0)
	}
	if p.create {
		b.table(unix.NFT_MSG_NEWTABLE, "NEWTABLE", unix.NLM_F_CREATE|unix.NLM_F_EXCL, p.flags)
	}
	if p.takeOver {
		b.table(unix.NFT_MSG_NEWTABLE, "NEWTABLE", 0, p.flags)
	}
	if err := b.content(p); err != nil {
		return err
	}
	b.orFlags(unix.NLM_F_ACK)
	b.control(unix.NFNL_MSG_BATCH_END, "BATCH_END")
	b.end()
	return nil
}

func (b *batch) content(p *plan) error {
	for i, s := range p.newSets {
		b.newSet(s, uint32(i+1))
		b.fillSet(s)
	}
	for i := range p.elements {
		b.changeElements(&p.elements[i])
	}
	for _, c := range p.newChains {
		b.newChain(c)
	}
	for i := range p.rules {
		if err := b.changeRule(&p.rules[i]); err != nil {
			return err
		}
	}
	for _, name := range p.delChains { // empties all of them first, since one may jump to another
		b.emptyChain(name)
	}
	for _, name := range p.delChains {
		b.begin(unix.NFT_MSG_DELCHAIN, 0, message{op: "DELCHAIN", object: name})
		b.string(unix.NFTA_CHAIN_TABLE, TableName)
		b.string(unix.NFTA_CHAIN_NAME, name)
		b.end()
	}
	for _, name := range p.delSets {
		b.begin(unix.NFT_MSG_DELSET, 0, message{op: "DELSET", object: name})
		b.string(unix.NFTA_SET_TABLE, TableName)
		b.string(unix.NFTA_SET_NAME, name)
		b.end()
	}
	return nil
}

func (b *batch) begin(typ, flags uint16, m message) {
	b.messages = append(b.messages, m)
	b.beginNFT(typ, flags)
}

func (b *batch) control(typ uint16, op string) {
	b.messages = append(b.messages, message{op: op})
	b.wire.begin(typ, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
}

// The flags of a table with an owner (linux/netfilter/nf_tables.h): while the socket lives that made it or took it over,
// nobody else can change it or flush it; and it outlives the socket, then without an owner. The first flag without the
// second deletes the table with the socket: what a trace wants, and the policies' table never is.
const (
	ownedOnly = 1 << 1 // NFT_TABLE_F_OWNER, kernel 5.12
	orphan    = 1 << 2 // NFT_TABLE_F_PERSIST, kernel 6.9
	owned     = orphan | ownedOnly
)

func (b *batch) table(typ uint16, op string, flags uint16, tableFlags uint32) {
	b.begin(typ, flags, message{op: op, object: TableName})
	b.string(unix.NFTA_TABLE_NAME, TableName)
	if tableFlags != 0 {
		b.uint32(unix.NFTA_TABLE_FLAGS, tableFlags)
	}
	b.end()
}

// What every base chain of ours has.
const (
	policyAccept = 1 // NF_ACCEPT
	chainType    = "filter"
)

func (b *batch) newChain(c *Chain) {
	b.begin(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message{op: "NEWCHAIN", object: c.Name})
	b.string(unix.NFTA_CHAIN_TABLE, TableName)
	b.string(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != HookNone {
		hook := b.nest(unix.NFTA_CHAIN_HOOK)
		b.uint32(unix.NFTA_HOOK_HOOKNUM, c.Hook.Number())
		b.uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority()))
		b.endNest(hook)
		b.uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
		b.string(unix.NFTA_CHAIN_TYPE, chainType)
	}
	b.end()
}

// emptyChain deletes all rules of a chain.
func (b *batch) emptyChain(name string) {
	b.begin(unix.NFT_MSG_DELRULE, 0, message{op: "DELRULE", object: name})
	b.string(unix.NFTA_RULE_TABLE, TableName)
	b.string(unix.NFTA_RULE_CHAIN, name)
	b.end()
}

// changeRule asks for an echo of each new rule (NLM_F_ECHO): that is how its handle becomes known.
func (b *batch) changeRule(c *ruleChange) error {
	switch c.place {
	case allGone:
		b.emptyChain(c.chain)
		return nil
	case gone:
		b.begin(unix.NFT_MSG_DELRULE, 0, message{op: "DELRULE", object: c.chain})
		b.string(unix.NFTA_RULE_TABLE, TableName)
		b.string(unix.NFTA_RULE_CHAIN, c.chain)
		b.uint64(unix.NFTA_RULE_HANDLE, c.handle)
		b.end()
		return nil
	}
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_ECHO)
	if c.place != atStart {
		flags |= unix.NLM_F_APPEND
	}
	exprs, err := expr.Marshal(c.rule.Statements)
	if err != nil {
		return err
	}
	b.echoes++
	b.begin(unix.NFT_MSG_NEWRULE, flags, message{op: "NEWRULE", object: c.chain, rule: c})
	b.string(unix.NFTA_RULE_TABLE, TableName)
	b.string(unix.NFTA_RULE_CHAIN, c.chain)
	if c.place == afterHandle {
		b.uint64(unix.NFTA_RULE_POSITION, c.handle)
	}
	b.bytes(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, exprs)
	if c.rule.Comment != "" {
		b.bytes(unix.NFTA_RULE_USERDATA, comment(nil, userdata.TypeComment, c.rule.Comment))
	}
	b.end()
	return nil
}

// maxComment is NFTNL_UDATA_COMMENT_MAXLEN: the bytes of a comment and its NUL.
const maxComment = 128

// commentText is the comment as it can be stored and printed: cut to what fits, and without the quote that would end
// nft's string when it is read back.
func commentText(text string) string {
	return strings.ReplaceAll(text[:min(len(text), maxComment-1)], `"`, "'")
}

// comment appends the text as nft stores it.
func comment(udata []byte, typ userdata.Type, text string) []byte {
	return userdata.Append(udata, typ, append([]byte(commentText(text)), 0))
}
