package cache

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// isolation is an isolated interface and the policies that isolate it.
// Isolated interfaces of a direction are sorted by name.
type isolation struct {
	iface     string
	policies  []*installed   // sorted
	effective []*policyChain // of the policies whose rules apply, in the same order: the others exceed a limit
	audited   bool           // all policies are in audit mode, so nothing is dropped
	logged    bool           // packets that no rule accepts are reported

	hidden hiding // hiding of the interface
}

// view has all inputs of a plan, copied under the lock, so that the plan is made without the lock.
type view struct {
	selected    []*installed // policies that select the pod, sorted
	attachments []place      // sorted by interface
	overflow    bool         // the pod has more interfaces than the limit
	ports       []policy.NamedPort
	bridge      bool // policies must be enforced in a bridge, which the pod has or will have
	logsDrops   bool // packets are reported that are dropped
	logsAudits  bool // packets are reported that policies in audit mode would drop

	// isolated and open are set by isolate.
	isolated [len(engine.Directions)][]isolation
	open     []string // interfaces that are not isolated in either direction, lo included
}

// place is an interface of a pod on a network, at the time of a view.
type place struct {
	iface      string
	network    Key
	pluginType string
	isolated   bool // by policies for the network
	elsewhere  bool // another implementation enforces policies for the network

	hidden hiding // hiding of the interface
	caveat string // why the hiding is unknown; empty: it is known
}

// view returns the view of a pod. The caller holds the lock; view releases it at intervals, and starts again if
// something changed meanwhile.
// The view may be copied, but its lists belong to the plan.
func (c *Cache) view(t *target) view {
	ns := t.pod.namespace
	for try := 0; ; try++ {
		walk := slice{cache: c, keep: try == lastTry}
		version, state := ns.policyVersion, t.pod.state
		v := view{overflow: state.overflow, ports: state.ports, bridge: t.hasBridge(), logsDrops: c.logsDrops(t), logsAudits: c.options.LogsAudits()}
		for i := 0; i < len(ns.ordered); i++ {
			if p := ns.ordered[i]; p.covers(state) {
				v.selected = append(v.selected, p)
			}
			walk.step()
		}
		v.attachments = c.places(t, state.attachments)
		// Nothing that the view depends on has changed since its start.
		if version == ns.policyVersion && state == t.pod.state {
			return v
		}
	}
}

// places returns the interfaces of a pod. The caller holds the lock.
// The interfaces are in the order of the attachments.
func (c *Cache) places(t *target, attachments []attachment) []place {
	list := make([]place, 0, len(attachments))
	for _, a := range attachments {
		list = append(list, place{
			a.iface, a.network.key, a.network.PluginType, c.isolates(a.network, t.pod), c.options.EnforcedBy[a.network.PluginType] != "",
			hiding{why: t.unenforceable}.orWorse(a.network.hides(t.pod)).orWorse(t.pod.state.inBond(t.pod, a.iface)),
			a.network.caveat(t.pod),
		})
	}
	return list
}

// lastTry is the number of the try that keeps the lock, so that no further try is needed.
const lastTry = 5

// isolate sorts the interfaces into isolated and open interfaces. It takes no lock.
func (v *view) isolate() {
	isolated := map[string]bool{}
	for _, d := range engine.Directions {
		v.isolated[d] = v.isolations(d)
		for n := range v.isolated[d] {
			i := &v.isolated[d][n]
			i.audited = !slices.ContainsFunc(i.policies, (*installed).isEnforced)
			i.logged = v.logsDrops || i.audited && v.logsAudits
			isolated[i.iface] = true
		}
	}
	v.open = []string{"lo"}
	for _, a := range v.attachments {
		if !isolated[a.iface] && !slices.Contains(v.open, a.iface) {
			v.open = append(v.open, a.iface)
		}
	}
}

// notVLANs returns the open interfaces of a direction whose names look like those of VLAN devices on isolated interfaces.
// Their packets must not match the pattern NAME.* of the isolated interface.
func (v *view) notVLANs(d engine.Direction) (names []string) {
	for _, a := range v.attachments {
		isLikeVLAN := func(i isolation) bool { return strings.HasPrefix(a.iface, i.iface+".") }
		if slices.ContainsFunc(v.isolated[d], isLikeVLAN) && !isIsolated(v.isolated[d], a.iface) && !slices.Contains(names, a.iface) {
			names = append(names, a.iface)
		}
	}
	return names
}

// isolations returns the interfaces that are isolated in a direction, sorted, each with the policies that isolate it.
func (v *view) isolations(d engine.Direction) []isolation {
	var out []isolation
	for _, a := range v.attachments {
		if !a.isolated {
			continue
		}
		var policies []*installed
		for _, p := range v.selected {
			if p.sections[d] != nil && p.IsFor(a.network) {
				policies = append(policies, p)
			}
		}
		switch n := len(out); {
		case len(policies) == 0:
		case n > 0 && out[n-1].iface == a.iface: // one interface on several networks
			all := append(out[n-1].policies, policies...)
			slices.SortFunc(all, comparePolicies)
			out[n-1].policies = slices.Compact(all)
			out[n-1].hidden = out[n-1].hidden.orWorse(a.hidden)
		default:
			out = append(out, isolation{iface: a.iface, policies: policies, hidden: a.hidden})
		}
	}
	return out
}

// unsupported returns the networks of the pod that policies are for and that nobody isolates, at most policy.MaxProblems.
// Users learn of them by the Shortfall UnsupportedNetworkPlugin.
func (v *view) unsupported() []unsupported {
	var out []unsupported
	for _, a := range v.attachments {
		if a.isolated || a.elsewhere {
			continue
		}
		for _, p := range v.selected {
			if p.IsFor(a.network) && len(out) < policy.MaxProblems {
				out = append(out, unsupported{p.Policy, a.network, a.pluginType})
			}
		}
	}
	return out
}

// dropsUnknown reports whether packets of unknown interfaces are dropped in a direction: the pod has more interfaces than the
// limit, and a policy isolates the direction.
func (v *view) dropsUnknown(d engine.Direction) bool {
	return v.overflow && slices.ContainsFunc(v.selected, func(p *installed) bool { return p.sections[d] != nil && p.isEnforced() })
}

// isEnforced reports whether the policy is not in audit mode.
func (p *installed) isEnforced() bool { return !p.audited }

// isEnforced reports whether the list has the interface, and not in audit mode.
func isEnforced(list []isolation, iface string) bool {
	return slices.ContainsFunc(list, func(i isolation) bool { return i.iface == iface && !i.audited })
}

// isIsolated reports whether the list has the interface.
func isIsolated(list []isolation, iface string) bool {
	return slices.ContainsFunc(list, func(i isolation) bool { return i.iface == iface })
}

// source describes the content of an interface's chain: chains with equal sources are equal, see planBuilder.keep.
func (i isolation) source() string {
	names := []string{i.iface, fmt.Sprint(i.audited, i.logged)}
	for _, pc := range i.effective {
		names = append(names, pc.key.section.Policy, pc.built.Guard.ID)
	}
	return strings.Join(names, " ")
}
