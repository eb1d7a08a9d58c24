package engine

import "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/uapi"

// Kernel memory of the parts of a table, bytes, measured by the memory cgroup on 6.18 and rounded up: the kernel charges it
// to the cgroup of the process that sends the batch (GFP_KERNEL_ACCOUNT).
const (
	memoryIntervalSet = 18_000 // with the lookup array of its last change
	memoryPortRanges  = 50_000 // a concatenated set with ranges
	memoryHashSet     = 700
	memoryRange       = 230
	memoryPortRange   = 340
	memoryHashElement = 72 // a port, an address or an endpoint
	memoryChain       = 320
	memoryRule        = 1_000
)

// Memory estimates the kernel memory that the table of a Ruleset takes, in bytes. It is for budgets, so it rather
// exceeds the real amount.
// An empty Ruleset takes 0 bytes: it has no table.
func (rs Ruleset) Memory() (bytes int) {
	for _, s := range rs.Sets {
		n := size(s.Elements)
		switch layout := layoutOf(s.Elements); {
		case len(layout.fields) > 0:
			bytes += memoryPortRanges + n*memoryPortRange
		case layout.flags&uapi.NFT_SET_INTERVAL != 0:
			bytes += memoryIntervalSet + n*memoryRange
		default:
			bytes += memoryHashSet + n*memoryHashElement
		}
	}
	for _, c := range rs.Chains {
		bytes += memoryChain + len(c.Rules)*memoryRule
	}
	return bytes
}
