package cache

import (
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// A virtual machine in a pod is behind a bridge: its frames pass between two ports of the bridge, and the table of family inet
// sees none of them. So each selected pod has a second table, of family bridge. In a pod with a bridge it is full: it has the
// sets and the policies of the other table. In any other pod it drops, so that a bridge that appears is closed until the
// reconciler finds it.

// BridgeSupport is the part of the tables of family bridge that the kernel of the node can have.
type BridgeSupport uint8

// The levels of support.
// The zero value is full support, so a Cache without this option plans all tables.
const (
	BridgeStateful BridgeSupport = iota // connection tracking and policies
	BridgeDrops                         // no connection tracking for bridges: the tables can only drop
	BridgeMissing                       // no nf_tables for bridges
)

// virtualMachineLabel is a label that KubeVirt sets on the pods in which its virtual machines run, before they start.
const virtualMachineLabel = "kubevirt.io"

// hasVirtualMachine reports whether the labels announce a virtual machine, before its bridge exists.
func (s *podState) hasVirtualMachine() bool { return s.labels.Has(virtualMachineLabel) }

// SetBridged notes that an isolated interface of a local pod is a port of a bridge. That holds as long as the pod is
// local: the cache does not learn of the end of a bridge.
// The reconciler calls it when it finds the bridge, see its bridge.go.
func (c *Cache) SetBridged(id PodID) {
	c.lock()
	defer c.unlock()
	if t := c.targets[id]; t != nil && !t.bridged {
		t.bridged = true
		c.markStale(t)
		c.recount(t)
	}
}

// hasBridge reports whether policies must be enforced in a bridge that the pod has or will have.
func (t *target) hasBridge() bool { return t.bridged || t.pod.state.hasVirtualMachine() }

// hasFull reports whether the table of a family has the rules of the policies, and not only drops.
// The table of family inet is always full.
func (b *planBuilder) hasFull(f expr.TableFamily) bool {
	return f == engine.Inet || b.view.bridge && b.cache.options.Bridge == BridgeStateful
}

// hasTable reports whether the pod needs a table of the family.
func (b *planBuilder) hasTable(f expr.TableFamily) bool {
	return f == engine.Inet || b.cache.options.Bridge != BridgeMissing
}

// Shortfall returns the reason why the kernel does not enforce policies in the bridge of a pod, or an empty text if it does.
// The text is for an Event and for explanations.
func (s BridgeSupport) Shortfall() string {
	switch s {
	case BridgeDrops:
		return "the pod has a bridge, as of a virtual machine, and the kernel of the node cannot enforce policies in bridges " +
			"(CONFIG_NF_CONNTRACK_BRIDGE), so all packets of IP between the bridge and isolated interfaces are dropped"
	case BridgeMissing:
		return "the pod has a bridge, as of a virtual machine, and the kernel of the node has no nf_tables for bridges " +
			"(CONFIG_NF_TABLES_BRIDGE), so policies do not isolate the other ports of the bridge"
	}
	return ""
}

// names returns the names that an interface of the pod can have where packets of a family pass: its own name, and its
// name as a port of a bridge. Both names matter in family inet too: a frame for a reserved multicast address passes the
// bridge without a look at its rules, and goes to the pod as a packet of the port.
func (v *view) names(f expr.TableFamily, iface string) []string {
	port := engine.BridgePort(iface)
	if f == engine.Inet && !v.bridge || !isInterfaceName(port) {
		return []string{iface}
	}
	return []string{iface, port}
}

// bridgePorts returns the names that the isolated interfaces can have as ports of a bridge, sorted.
func (v *view) bridgePorts() (names []string) {
	for _, d := range engine.Directions {
		for _, i := range v.isolated[d] {
			names = append(names, v.names(engine.Bridge, i.iface)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// framesChain returns the chain of an isolated interface in a table that only drops: ARP passes, and nothing else, unless the
// policies are in audit mode.
func framesChain(d engine.Direction, i isolation) *engine.Chain {
	arp := engine.Rule{Statements: []expr.Statement{expr.ARP(), expr.Accept()}}
	return &engine.Chain{Name: engine.InterfaceChain(d, i.iface), Rules: append([]engine.Rule{arp}, i.last(d)...)}
}

// frameRules returns the rules for frames without an IP packet: ARP passes, and nothing else. Policies say nothing
// about such frames. In audit mode all of them pass.
func frameRules(audited bool) []engine.Rule {
	if audited {
		return []engine.Rule{{Statements: append(expr.NotIP(), expr.Accept())}}
	}
	return []engine.Rule{
		{Statements: []expr.Statement{expr.ARP(), expr.Accept()}},
		{Statements: append(expr.NotIP(), expr.Counter(), expr.Drop())},
	}
}
