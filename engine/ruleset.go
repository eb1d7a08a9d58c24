package engine

import (
	"cmp"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// TableName is the name of the agent's tables in a pod's network namespace, in the families inet and bridge.
const TableName = "multi_networkpolicy"

// Ruleset is the content of a table of a network namespace, as plain data: the specification, not the kernel object.
// The zero value means no table. Sets and Chains are sorted by name and have no name twice; NewRuleset ensures both.
// The sets and chains are shared between pods and never change, so an equal pointer is an equal set or chain, and the
// plan passes over it.
type Ruleset struct {
	Sets   []*Set
	Chains []*Chain
}

// NewRuleset returns the ruleset of the sets and chains. It sorts both slices in place and keeps them. It drops
// repeated names, which must be repeated pointers or equal values.
func NewRuleset(s []*Set, c []*Chain) Ruleset {
	slices.SortFunc(s, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c, func(a, b *Chain) int { return cmp.Compare(a.Name, b.Name) })
	return Ruleset{
		Sets:   slices.CompactFunc(s, func(a, b *Set) bool { return a.Name == b.Name }),
		Chains: slices.CompactFunc(c, func(a, b *Chain) bool { return a.Name == b.Name }),
	}
}

// IsEmpty reports whether no table is wanted.
func (r Ruleset) IsEmpty() bool { return len(r.Sets) == 0 && len(r.Chains) == 0 }

// set returns the set with the name, or nil.
func (r Ruleset) set(name string) *Set {
	i, ok := slices.BinarySearchFunc(r.Sets, name, func(s *Set, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return nil
	}
	return r.Sets[i]
}

// chain returns the chain with the name, or nil.
func (r Ruleset) chain(name string) *Chain {
	i, ok := slices.BinarySearchFunc(r.Chains, name, func(c *Chain, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return nil
	}
	return r.Chains[i]
}

// The families of tables, see expr.TableFamily.
const (
	Inet   = expr.Inet
	Bridge = expr.Bridge
)

// Tables are the tables of a network namespace, by family (Inet, Bridge). The zero value means no tables.
type Tables [len(expr.TableFamilies)]Ruleset

// IsEmpty reports whether no table is wanted.
func (t *Tables) IsEmpty() bool { return t[Inet].IsEmpty() && t[Bridge].IsEmpty() }

// Memory estimates the kernel memory of the tables, in bytes.
func (t *Tables) Memory() int { return t[Inet].Memory() + t[Bridge].Memory() }

// Set is a named set. The kind of Elements gives its key type and flags; sets with the same name have the same kind.
type Set struct {
	// Name must be unique in the table. It follows the forms in names.go.
	Name     string
	Comment  string // at most 128 bytes in the kernel (NFTNL_UDATA_COMMENT_MAXLEN); the rest is cut
	Elements Elements

	// memory is how this version came about; it is no part of the content.
	memory
}

// Elements is the content of a set: Addrs, Hosts, Ports, Endpoints, Numbers or Served.
type Elements interface{ elements() }

// Addrs is an interval set of a family: `type ipv4_addr; flags interval`, or ipv6_addr. Neighbors are merged into
// ranges.
type Addrs struct {
	Family sets.Family
	Addrs  sets.Addrs // addresses; those of the other family are not in this set
}

// Hosts is a hash set of single addresses of a family: `type ipv4_addr`, or ipv6_addr. Unlike with Addrs, the kernel's cost
// of a change does not depend on the size of the set.
type Hosts struct {
	Family sets.Family
	Addrs  sets.Addrs // addresses; those of the other family are not in this set
	Count  int        // number of addresses of the family
}

// NewHosts returns the hash set of the addresses of a family, and counts them.
func NewHosts(f sets.Family, a sets.Addrs) Hosts {
	h := Hosts{Family: f, Addrs: a}
	for range a.Hosts(f) {
		h.Count++
	}
	return h
}

// Ports is a concatenated set: `type inet_service . inet_proto`, with `flags interval` if it has ranges of more than a
// few ports: a set with ranges takes 50 kB in the kernel, a hash set less than 1 kB. Its content never changes: another
// list of ports has another name.
type Ports struct{ Ports sets.Ports }

// Up to these numbers, each port is an element of its own in a hash set.
const (
	fewPorts      = 64
	fewPortsInRow = 4
)

// IsPlain reports whether the set is a hash set of single ports.
func (p Ports) IsPlain() bool {
	_, ok := p.single()
	return ok
}

// single returns the number of ports. ok is false if the ports are more than a few: the set then has ranges.
func (p Ports) single() (n int, ok bool) {
	for r := range p.Ports.Ranges() {
		row := int(r.To) - int(r.From) + 1
		if n += row; row > fewPortsInRow || n > fewPorts {
			return n, false
		}
	}
	return n, true
}

// Endpoints is a hash set without ranges: `type ipv4_addr . inet_proto . inet_service`, or ipv6_addr.
type Endpoints struct {
	Family    sets.Family
	Endpoints sets.Endpoints // endpoints; those of the other family are not in this set
}

// Numbers is an interval set of numbers: `type inet_service; flags interval` or the like. Its content never changes:
// other numbers have another name. All numbers are within the range of the type.
type Numbers struct {
	Type    expr.Datatype
	Numbers sets.Numbers
}

// Served is a hash set of UDP ports with a lifetime: `type inet_service; flags timeout`. Its content is no part of a
// Ruleset: the Engine adds ports when it seeds connection tracking (seed.go), and the kernel deletes them.
type Served struct{}

func (Addrs) elements()     {}
func (Hosts) elements()     {}
func (Ports) elements()     {}
func (Endpoints) elements() {}
func (Numbers) elements()   {}
func (Served) elements()    {}

// Hook is the netfilter hook of a base chain, which has the type filter and the policy accept. The zero value is the hook
// of a regular chain.
type Hook string

// The hooks of base chains. At prerouting, a packet still has the interface that it came in on, and the port that its
// sender dialed: virtual routing (VRF) replaces the interface, and address translation the port. At forward and output,
// it already has the destination that it leaves for.
const (
	HookNone       Hook = ""
	HookPrerouting Hook = "prerouting"
	HookForward    Hook = "forward"
	HookOutput     Hook = "output"
)

// Number returns the number of the hook in enum nf_inet_hooks (linux/netfilter.h). The hooks of bridges have the same numbers
// (linux/netfilter_bridge.h).
func (h Hook) Number() uint32 { return places[h].number }

// Priority returns the priority of the hook's base chain in a table of the family. Chains with lower priorities see a
// packet earlier (enum nf_ip_hook_priorities in linux/netfilter_ipv4.h).
func (h Hook) Priority(f expr.TableFamily) int32 { return places[h].priority[f] }

// place is the place of a base chain: the number of its hook, and its priority there.
type place struct {
	number   uint32 // enum nf_inet_hooks
	priority [len(expr.TableFamilies)]int32
	text     [len(expr.TableFamilies)]string // the priority as nft prints it
}

// places has the place of each hook's base chain. Ingress is judged after connection tracking (-200), and before address
// translation (-100). Egress is judged after address translation. In a bridge, egress is judged before br_netfilter (-1) takes the
// packet away: on its way back, the packet skips chains with the priority 0 that are older than the bridge.
var places = map[Hook]place{
	HookPrerouting: {0, [...]int32{Inet: -110, Bridge: -110}, [...]string{Inet: "dstnat - 10", Bridge: "-110"}},
	HookForward:    {2, [...]int32{Inet: 0, Bridge: -110}, [...]string{Inet: "filter", Bridge: "-110"}},
	HookOutput:     {3, [...]int32{Inet: 0, Bridge: -110}, [...]string{Inet: "filter", Bridge: "-110"}},
}

// Chain is a chain and its rules in order. It must not change after it is part of a Ruleset.
type Chain struct {
	Name  string
	Hook  Hook
	Rules []Rule
}

// Rule is a list of statements, usually with a verdict at the end. It matches a packet if all its matches do.
type Rule struct {
	Statements []expr.Statement
	Comment    string // printed by nft as `comment "…"`; at most 128 bytes, the rest is cut
}

// Text returns the rule as nft prints it in a table of family inet, without its comment.
func (r Rule) Text() string { return r.textIn(Inet) }

// textIn returns the rule as nft prints it in a table of the family, without its comment.
func (r Rule) textIn(f expr.TableFamily) string {
	var b strings.Builder
	for i, s := range r.Statements {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.Text(s))
	}
	return b.String()
}

// summary lists the sets and the chain that the rule refers to.
func (r *Rule) summary() expr.Summary { return expr.Summarize(r.Statements) }
