package trace

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/packet"
)

// familyHeader is the size of struct nfgenmsg, which starts each message of nfnetlink: family, version, resource.
const familyHeader = 4

// event is an NFT_MSG_TRACE message (linux/netfilter/nf_tables.h, enum nft_trace_attributes): a packet matched a rule,
// reached the end of a chain, or met the policy of a base chain.
type event struct {
	family uint8
	id     uint32 // of the packet; a later packet may have the same ID
	kind   uint32 // NFT_TRACETYPE_RULE, _RETURN or _POLICY
	table  string
	chain  string
	handle uint64 // of the rule; 0: the event is about no rule
	// verdict is a negative NFT_ number that leads on (NFT_JUMP), or an NF_ number that ends the path, see verdictText.
	verdict int32
	target  string // the chain of a jump or goto
	// The kernel sends interfaces and headers only with the first event of each base chain.
	in, out uint32 // indexes of interfaces; 0: none
	packet  packet.Headers
}

// parseEvent reads an event. The body is the message without struct nlmsghdr.
// The trace event of a rule has these attributes; a policy has NFTA_TRACE_POLICY in place of the verdict and no handle.
func parseEvent(body []byte) (event, error) {
	if len(body) < familyHeader {
		return event{}, fmt.Errorf("trace event of %d bytes", len(body))
	}
	a, err := nfnl.ParseAttrs(body[familyHeader:])
	if err != nil {
		return event{}, fmt.Errorf("trace event: %w", err)
	}
	e := event{
		family: body[0],
		id:     a.Uint32(unix.NFTA_TRACE_ID),
		kind:   a.Uint32(unix.NFTA_TRACE_TYPE),
		table:  a.Text(unix.NFTA_TRACE_TABLE),
		chain:  a.Text(unix.NFTA_TRACE_CHAIN),
		handle: a.Uint64(unix.NFTA_TRACE_RULE_HANDLE),
		in:     a.Uint32(unix.NFTA_TRACE_IIF),
		out:    a.Uint32(unix.NFTA_TRACE_OIF),
		packet: packet.ParseHeaders(a[unix.NFTA_TRACE_NETWORK_HEADER], a[unix.NFTA_TRACE_TRANSPORT_HEADER]),
	}
	if e.kind == unix.NFT_TRACETYPE_POLICY {
		// NF_ACCEPT or NF_DROP, without the nest that the verdict of a rule has.
		e.verdict = int32(a.Uint32(unix.NFTA_TRACE_POLICY))
		return e, nil
	}
	v, err := nfnl.ParseAttrs(a[unix.NFTA_TRACE_VERDICT])
	if err != nil {
		return event{}, fmt.Errorf("trace event: verdict: %w", err)
	}
	e.verdict = int32(v.Uint32(unix.NFTA_VERDICT_CODE))
	e.target = v.Text(unix.NFTA_VERDICT_CHAIN)
	return e, nil
}

// isOurs reports whether the rule or chain belongs to the table of a Tracer.
func (e event) isOurs() bool {
	return (e.family == unix.NFPROTO_INET || e.family == unix.NFPROTO_BRIDGE) && e.table == TableName
}

// marks reports whether the event is about the rule that marks packets. It is the first event of each traced packet:
// the kernel reports a packet from the moment that its nftrace bit is set.
func (e event) marks() bool {
	return e.isOurs() && e.chain == markChain && e.kind == unix.NFT_TRACETYPE_RULE && e.handle != 0
}

// isEnd reports whether the packet reached the end of a chain without a verdict. Not all kernels send these events, so
// they are never a Step.
func (e event) isEnd() bool { return e.handle == 0 && e.kind != unix.NFT_TRACETYPE_POLICY }

// Verdicts that end the path of a packet through a hook (linux/netfilter.h). The verdicts of nf_tables that lead on, such as
// jump and return, are negative numbers.
const (
	nfDrop   = 0
	nfAccept = 1
	nfStolen = 2
	nfQueue  = 3
	nfMask   = 0xff // NF_VERDICT_MASK; the upper half has the errno of a drop, or the number of a queue
)

// verdictText returns the word that nft prints for a verdict.
func verdictText(code int32) string {
	// The negative verdicts of nf_tables are compared as whole numbers: the mask is for the verdicts of netfilter only.
	switch code {
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
		return "continue"
	case unix.NFT_JUMP:
		return "jump"
	case unix.NFT_GOTO:
		return "goto"
	case unix.NFT_RETURN:
		return "return"
	}
	switch code & nfMask {
	case nfDrop:
		return "drop"
	case nfAccept:
		return "accept"
	case nfStolen:
		return "stolen"
	case nfQueue:
		return "queue"
	}
	return fmt.Sprintf("verdict %d", code)
}

// familyText returns the word that nft prints for the family of a table.
func familyText(family uint8) string {
	switch family {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return fmt.Sprintf("family %d", family)
}

// step returns the Step of the event, without the fields that need the rule itself.
func (e event) step() Step {
	return Step{
		Family: familyText(e.family), Table: e.table, Chain: e.chain, Handle: e.handle,
		Verdict: verdictText(e.verdict), Target: e.target, IsPolicy: e.kind == unix.NFT_TRACETYPE_POLICY,
	}
}
