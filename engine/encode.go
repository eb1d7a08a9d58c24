//go:build linux

package engine

import (
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// batch is a plan as netlink messages.
type batch struct {
	nfnl.Messages
	family expr.TableFamily
	// added has the new rules in the order of their messages, hence ascending by sequence number.
	added []addedRule
}

// addedRule is a new rule. The kernel's answer to the message with this sequence number has the handle of the rule.
// ruleChange belongs to the plan, which lives until the answers have been read.
type addedRule struct {
	sequence uint32
	*ruleChange
}

// reset empties the batch and keeps its memory. References to rules are cleared, so that old rulesets can be freed.
func (b *batch) reset() {
	b.Reset()
	clear(b.added)
	b.added = b.added[:0]
}

// encode writes the plan as a batch for a table with the generation: the kernel then never applies a difference to a
// table that has changed since the plan was made. An error means that a rule cannot be marshaled.
func (b *batch) encode(p *plan, generation uint32) error {
	b.reset()
	b.BeginBatch(generation)
	if p.anyway { // the deletion needs a table; an existing table stays as it is
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
	b.EndBatch()
	return nil
}

// content writes the messages of the plan in the order that the kernel needs: an object is created before another object
// refers to it, and deleted after the last reference to it.
func (b *batch) content(p *plan) error {
	for i, s := range p.newSets {
		// The kernel requires an ID for each new set of a batch. Rules refer to sets by name, so the IDs only have to
		// differ.
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
	for _, name := range p.delChains { // empties all chains first, since a chain may jump to another
		b.emptyChain(name)
	}
	for _, name := range p.delChains {
		b.begin(unix.NFT_MSG_DELCHAIN, 0, nfnl.Label{Op: "DELCHAIN", Object: name})
		b.Text(unix.NFTA_CHAIN_TABLE, TableName)
		b.Text(unix.NFTA_CHAIN_NAME, name)
		b.End()
	}
	for _, name := range p.delSets {
		b.begin(unix.NFT_MSG_DELSET, 0, nfnl.Label{Op: "DELSET", Object: name})
		b.Text(unix.NFTA_SET_TABLE, TableName)
		b.Text(unix.NFTA_SET_NAME, name)
		b.End()
	}
	return nil
}

// begin opens a message of nf_tables for the family of the table. The type is an NFT_MSG_ number.
func (b *batch) begin(typ, flags uint16, l nfnl.Label) {
	b.BeginNFT(typ, flags, b.family.Number(), l)
}

// table writes a message about the table itself.
func (b *batch) table(typ uint16, op string, flags uint16, tableFlags uint32) {
	b.begin(typ, flags, nfnl.Label{Op: op, Object: TableName})
	b.Text(unix.NFTA_TABLE_NAME, TableName)
	if tableFlags != 0 {
		b.Uint32(unix.NFTA_TABLE_FLAGS, tableFlags)
	}
	b.End()
}

// Properties of every base chain of the agent. The policy is accept, because packets of interfaces that no policy
// isolates must pass.
const (
	policyAccept = 1 // NF_ACCEPT
	chainType    = "filter"
)

// newChain writes a new chain without rules. With a hook it is a base chain.
// The rules come as messages of their own, since they may jump to chains that come later.
func (b *batch) newChain(c *Chain) {
	b.begin(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nfnl.Label{Op: "NEWCHAIN", Object: c.Name})
	b.Text(unix.NFTA_CHAIN_TABLE, TableName)
	b.Text(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != HookNone {
		hook := b.Nest(unix.NFTA_CHAIN_HOOK)
		b.Uint32(unix.NFTA_HOOK_HOOKNUM, c.Hook.Number())
		b.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority(b.family)))
		b.EndNest(hook)
		b.Uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
		b.Text(unix.NFTA_CHAIN_TYPE, chainType)
	}
	b.End()
}

// emptyChain deletes all rules of a chain.
func (b *batch) emptyChain(name string) {
	b.begin(unix.NFT_MSG_DELRULE, 0, nfnl.Label{Op: "DELRULE", Object: name})
	b.Text(unix.NFTA_RULE_TABLE, TableName)
	b.Text(unix.NFTA_RULE_CHAIN, name)
	b.End()
}

// changeRule writes the deletion or addition of a rule. It asks for an echo of each new rule (NLM_F_ECHO), which has
// the handle of the rule.
func (b *batch) changeRule(c *ruleChange) error {
	switch c.place {
	case allGone:
		b.emptyChain(c.chain)
		return nil
	case gone:
		b.begin(unix.NFT_MSG_DELRULE, 0, nfnl.Label{Op: "DELRULE", Object: c.chain})
		b.Text(unix.NFTA_RULE_TABLE, TableName)
		b.Text(unix.NFTA_RULE_CHAIN, c.chain)
		b.Uint64(unix.NFTA_RULE_HANDLE, c.handle)
		b.End()
		return nil
	}
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_ECHO)
	// Without NLM_F_APPEND the kernel puts the rule at the start of the chain, or before the rule at the position.
	if c.place != atStart {
		flags |= unix.NLM_F_APPEND
	}
	exprs, err := expr.Marshal(b.family, c.rule.Statements)
	if err != nil {
		return err
	}
	b.begin(unix.NFT_MSG_NEWRULE, flags, nfnl.Label{Op: "NEWRULE", Object: c.chain})
	b.added = append(b.added, addedRule{b.Sequence(), c})
	b.Text(unix.NFTA_RULE_TABLE, TableName)
	b.Text(unix.NFTA_RULE_CHAIN, c.chain)
	if c.place == afterHandle {
		b.Uint64(unix.NFTA_RULE_POSITION, c.handle)
	}
	b.Data(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, exprs)
	if c.rule.Comment != "" {
		b.Data(unix.NFTA_RULE_USERDATA, comment(nil, userdata.TypeComment, c.rule.Comment))
	}
	b.End()
	return nil
}

// comment appends the text as nft stores it: an entry of userdata with a NUL at its end.
func comment(udata []byte, typ userdata.Type, text string) []byte {
	return userdata.Append(udata, typ, append([]byte(commentText(text)), 0))
}
