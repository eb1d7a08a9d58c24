package cache

import (
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// chainKey identifies a chain: a section, and the variant of the section that the named ports of a pod make.
// Two pods with the same named ports, as far as the section uses names, have the same variant.
type chainKey struct {
	section *policy.Section
	variant policy.Digest
}

// policyChain is the chain of a direction of a policy in force. Local pods share it, unless their named ports make
// different chains. It exists while a plan of a local pod uses it, and keeps its groups in use for as long.
type policyChain struct {
	key   chainKey
	users int           // number of plans that use it
	ready chan struct{} // closed once the fields below are set
	// build makes the chain. The function reports which groups are split. built is the chain while no group is split.
	build  func(split func(*policy.Group, sets.Family) bool) *policy.Chain
	built  *policy.Chain
	split  splitChain    // the chain while some groups are split
	jumps  [2]jump       // to the chain; index 1: to the chain for replies
	groups []*group      // groups that the rules refer to, each once
	ports  []*engine.Set // sets of ports that the rules refer to, each once

	collides bool // a name of it is the name of something else by a collision of hashes, so it allows nothing
}

// portList is the set of a list of ports. Chains that have rules with the same list share it.
type portList struct {
	digest policy.Digest
	set    *engine.Set
	users  int
}

// acquireChain returns the chain of a section for a pod with these named ports, when its groups have their members. The
// caller must release it. It holds the lock only briefly; the first caller builds the chain, and later callers wait for
// it.
// namespace is that of the policy: it owns the groups of the chain.
func (c *Cache) acquireChain(s *policy.Section, pod []policy.NamedPort, namespace string) *policyChain {
	key := chainKey{s, s.Variant(pod)}
	c.lock()
	pc, known := c.chains[key]
	if !known {
		pc = &policyChain{key: key, ready: make(chan struct{})}
		c.chains[key] = pc
	}
	pc.users++
	c.unlock()
	if !known {
		// Building may take long for a large policy, so it happens without the lock; later callers wait for ready.
		c.buildChain(pc, pod, namespace)
		close(pc.ready)
	}
	<-pc.ready
	// The groups may be new too, and another worker may still fill them.
	for _, g := range pc.groups {
		<-g.ready
	}
	return pc
}

// buildChain makes the chain and acquires its sets. It fills the groups that are new, in the worker of this pod.
func (c *Cache) buildChain(pc *policyChain, pod []policy.NamedPort, namespace string) {
	s := pc.key.section
	pc.build = func(split func(*policy.Group, sets.Family) bool) *policy.Chain {
		return s.Build(pod, policy.BuildOptions{Replies: c.options.RevokeEstablished, Counters: c.options.PolicyCounters, Split: split})
	}
	pc.built = pc.build(nil)
	for _, spec := range pc.built.Groups {
		c.lock()
		g, isNew := c.acquireGroup(spec, namespace)
		c.unlock()
		if g == nil {
			// A chain without one of its groups would have rules with the members of another group.
			pc.collides = true
			continue
		}
		pc.groups = append(pc.groups, g)
		if isNew {
			c.fill(g)
		}
	}
	c.lock()
	for _, p := range pc.built.Ports {
		if set := c.acquirePorts(p); set != nil {
			pc.ports = append(pc.ports, set)
		} else {
			pc.collides = true
		}
	}
	c.unlock()
	// The rules allow nothing, and the chain still exists: the plan reports the problem.
	if pc.collides {
		pc.built = &policy.Chain{Chain: &engine.Chain{Name: s.ChainName}}
		if c.options.RevokeEstablished {
			pc.built.Replies = &engine.Chain{Name: engine.RepliesPrefix + s.ChainName}
		}
	}
	pc.jumps = [2]jump{pc.jump(""), pc.jump(engine.RepliesPrefix)}
}

// jump is the rules that lead to the chain of a policy. Pods share them, so that a pod with many policies costs little memory.
type jump struct {
	always engine.Rule   // without the guard of the chain
	rules  []engine.Rule // with the guard
}

// jump returns the rules that lead to the chain, or to the chain for replies.
// The prefix is empty or engine.RepliesPrefix. built must be set.
func (pc *policyChain) jump(prefix string) jump {
	s := pc.key.section
	always := engine.Rule{Statements: []expr.Statement{expr.Jump(prefix + s.ChainName)}, Comment: s.JumpComment()}
	return jump{always, guarded(&pc.built.Guard, prefix, always)}
}

// guarded returns a rule with a match for ports in front: as many rules as the match has alternatives.
// Without a match, the result is the rule alone.
func guarded(ports *policy.PortMatch, prefix string, rule engine.Rule) (rules []engine.Rule) {
	for _, match := range ports.Alternatives(prefix != "") {
		rules = append(rules, engine.Rule{Statements: slices.Concat(match, rule.Statements), Comment: rule.Comment})
	}
	return rules
}

// jumpTo returns the rules that lead to the chain of the policy, or with the prefix of replies to the chain for replies.
func (pc *policyChain) jumpTo(prefix string) *jump {
	if prefix == "" {
		return &pc.jumps[0]
	}
	return &pc.jumps[1]
}

// releaseChain ends a plan's use of a chain. The caller holds the lock.
// namespace is that of the policy.
func (c *Cache) releaseChain(pc *policyChain, namespace string) {
	if pc.users--; pc.users > 0 {
		return
	}
	delete(c.chains, pc.key)
	for _, g := range pc.groups {
		c.releaseGroup(g, namespace)
	}
	for _, s := range pc.ports {
		c.releasePorts(s)
	}
}

// acquirePorts returns the set of a list of ports, or nil if another list has the same name by a collision of hashes.
// The caller holds the lock.
// The set is the same pointer for all chains, so the engine need not compare its elements.
func (c *Cache) acquirePorts(p policy.PortSet) *engine.Set {
	l := c.ports[p.Name()]
	switch {
	case l == nil:
		l = &portList{digest: p.Digest, set: &engine.Set{Name: p.Name(), Elements: engine.Ports{Ports: p.Ports}}}
		c.ports[p.Name()] = l
		c.counts.portLists.Add(1)
	case l.digest != p.Digest:
		return nil
	}
	l.users++
	return l.set
}

// releasePorts ends a chain's use of a set of ports. The caller holds the lock.
// The last use forgets the list.
func (c *Cache) releasePorts(s *engine.Set) {
	l := c.ports[s.Name]
	if l.users--; l.users == 0 {
		delete(c.ports, s.Name)
		c.counts.portLists.Add(-1)
	}
}

// commonChain returns the chain that accepts the packets that pass on every isolated interface or, with the prefix of
// replies, the chain that accepts the replies to these packets.
// Its last rules are the user's. It ends without a verdict for all other packets.
func commonChain(d engine.Direction, o Options, prefix string) *engine.Chain {
	chain := &engine.Chain{Name: prefix + engine.CommonChain(d)}
	add := func(matches ...expr.Statement) {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: append(slices.Clip(matches), expr.Accept())})
	}
	if prefix == "" { // none of these messages is a reply
		for _, matches := range expr.LinkControl() {
			add(matches...)
		}
	}
	if o.AcceptICMP {
		add(expr.ICMP(sets.V4))
	}
	if o.AcceptICMPv6 {
		add(expr.ICMP(sets.V6))
	}
	chain.Rules = append(chain.Rules, o.Common(d).userRules(d, prefix)...)
	return chain
}

// baseChain returns a base chain. It sends the packets of each isolated interface, and of the VLAN devices on it, to
// the chain of the interface. The kernel gives a VLAN device the name of its parent with a suffix, as net1.100, unless
// somebody chooses another name. If a pod has more interfaces than the limit, the packets of an unknown interface are
// dropped.
// notVLANs are open interfaces whose names look like VLAN devices, see view.notVLANs.
func (v *view) baseChain(f expr.TableFamily, h engine.Hook, d engine.Direction, notVLANs []string) *engine.Chain {
	chain := &engine.Chain{Name: string(h), Hook: h}
	add := func(statements ...expr.Statement) {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: statements})
	}
	// The order of the rules matters: exact names first, then the exceptions of the patterns, then the patterns.
	for _, i := range v.isolated[d] {
		for _, name := range v.names(f, i.iface) {
			add(d.OnInterface(name), expr.Goto(engine.InterfaceChain(d, i.iface)))
		}
	}
	for _, iface := range notVLANs {
		for _, name := range v.names(f, iface) {
			add(d.OnInterface(name), expr.Accept())
		}
	}
	for _, i := range v.isolated[d] {
		for _, name := range v.names(f, i.iface) {
			if pattern := name + ".*"; len(pattern) <= interfaceNameMax {
				add(d.OnInterfaces(pattern), expr.Goto(engine.InterfaceChain(d, i.iface)))
			}
		}
	}
	// The interfaces beyond the limit are unknown, so everything that is not listed is dropped.
	if v.dropsUnknown(d) {
		for _, iface := range v.open {
			for _, name := range v.names(f, iface) {
				add(d.OnInterface(name), expr.Accept())
			}
		}
		add(expr.Counter(), expr.Drop())
	}
	return chain
}

// interfaceChain returns the chain of an isolated interface. It accepts the packets that the policies allow, and drops
// all others. It judges the first packet of a connection or, if connections can be revoked, every packet: a reply
// passes as long as the packets that it answers pass. The rules in order: known connections, common rules, policies,
// packets to itself, the report and the drop.
// If all policies of the interface are in audit mode, the last rule accepts, and no rule before it drops.
func (b *planBuilder) interfaceChain(f expr.TableFamily, d engine.Direction, i isolation, otherWayEnforced bool) *engine.Chain {
	chain := &engine.Chain{Name: engine.InterfaceChain(d, i.iface)}
	add := func(statements ...expr.Statement) {
		chain.Rules = append(chain.Rules, engine.Rule{Statements: statements})
	}
	switch {
	case !b.cache.options.RevokeEstablished:
		add(expr.Established(), expr.Accept())
	default:
		add(expr.InState(expr.Is, expr.StateRelated), expr.Accept())
		verdict := expr.Accept()
		// If only this direction is isolated, the policies say nothing about the packets that a reply answers.
		if otherWayEnforced {
			verdict = expr.Jump(engine.RepliesPrefix + engine.InterfaceChain(d.Opposite(), i.iface))
		}
		for _, notServed := range notServed(f, d) {
			add(slices.Concat(expr.ReplyOfEstablished(), notServed, []expr.Statement{verdict})...)
		}
	}
	if f == engine.Bridge { // a rule without peers and ports accepts every frame
		chain.Rules = append(chain.Rules, frameRules(i.audited)...)
	}
	if i.audited {
		chain.Rules = append(chain.Rules, b.cache.common[f][d].audit...)
		chain.Rules = append(chain.Rules, i.policyRules("", d)...)
	} else {
		chain.Rules = append(chain.Rules, i.rules("", d)...)
	}
	if f == engine.Inet {
		// Behind the policies: most packets that reach this rule are about to be dropped, so it costs allowed packets
		// nothing.
		add(expr.Jump(engine.SelfChain(d)))
	}
	chain.Rules = append(chain.Rules, i.last(d)...)
	return chain
}

// notServed returns the matches for packets that can be replies, a list for each rule. A packet to a port in
// engine.ServedSet can look like a reply although its sender is the client. That concerns sockets of the pod, so a
// bridge has no such packets.
// The list has at least an element, which may be nil: any packet.
func notServed(f expr.TableFamily, d engine.Direction) [][]expr.Statement {
	if d == engine.Egress || f == engine.Bridge {
		return [][]expr.Statement{nil}
	}
	udp := sets.NumberRange{From: uint32(expr.UDP), To: uint32(expr.UDP)}
	return [][]expr.Statement{
		{expr.L4Protocol().Range(expr.IsNot, udp)},
		{expr.DestinationPort(expr.UDP).In(expr.IsNot, engine.ServedSet)},
	}
}

// selfChain returns the chain that accepts the packets that the pod sends to itself by way of the interface: the
// kernel's copies of its own multicast and broadcast messages, and connections that the pod redirects to a local port.
func selfChain(d engine.Direction) *engine.Chain {
	chain := &engine.Chain{Name: engine.SelfChain(d)}
	for _, f := range sets.Families {
		matches := expr.OwnCopy(f)
		if d == engine.Egress {
			matches = []expr.Statement{expr.Destination(f).Prefix(expr.Is, loopback[f])}
		}
		chain.Rules = append(chain.Rules, engine.Rule{Statements: append(matches, expr.Accept())})
	}
	return chain
}

// loopback has the addresses with which the pod reaches itself (RFC 6890).
var loopback = map[sets.Family]netip.Prefix{
	sets.V4: netip.MustParsePrefix("127.0.0.0/8"),
	sets.V6: netip.MustParsePrefix("::1/128"),
}

// repliesChain returns the chain that accepts the replies to the packets that interfaceChain accepts in the direction.
func repliesChain(d engine.Direction, i isolation) *engine.Chain {
	return &engine.Chain{Name: engine.RepliesPrefix + engine.InterfaceChain(d, i.iface), Rules: i.rules(engine.RepliesPrefix, d)}
}

// rules returns the rules that lead to the common chain and to the chains of the policies, or with the prefix of replies to their
// counterparts.
// The common chain comes first.
func (i isolation) rules(prefix string, d engine.Direction) []engine.Rule {
	common := engine.Rule{Statements: []expr.Statement{expr.Jump(prefix + engine.CommonChain(d))}}
	return append([]engine.Rule{common}, i.policyRules(prefix, d)...)
}

// policyRules returns the rules that lead to the chains of the policies.
func (i isolation) policyRules(prefix string, d engine.Direction) (rules []engine.Rule) {
	for _, g := range i.portGroups() {
		if len(g.chains) == 1 {
			rules = append(rules, g.chains[0].jumpTo(prefix).rules...)
			continue
		}
		to := engine.Rule{Statements: []expr.Statement{expr.Jump(prefix + engine.PortsChain(d, i.iface, g.ports.ID))}}
		rules = append(rules, guarded(g.ports, prefix, to)...)
	}
	return rules
}

// portGroup is the policies of an interface whose rules have the same list of ports. A packet costs one lookup of its port for
// all of them.
// An example: 50 policies that all allow port 443 have a rule with a single match for the port, and a chain with 50
// jumps.
type portGroup struct {
	ports  *policy.PortMatch // without an ID: of a single policy, which has several lists or no list
	chains []*policyChain
}

// portGroups returns the policies of the interface in groups.
// The order is that of the first policy of each group.
func (i isolation) portGroups() (groups []portGroup) {
	index := map[string]int{}
	for _, pc := range i.effective {
		ports := &pc.built.Guard
		n, known := index[ports.ID]
		if !known || ports.ID == "" {
			n = len(groups)
			index[ports.ID] = n
			groups = append(groups, portGroup{ports: ports})
		}
		groups[n].chains = append(groups[n].chains, pc)
	}
	return groups
}

// chain leads to the policies of the group. An interface needs it only for a group of several policies.
// Its rules need no match for ports: the rule that leads to the chain has it.
func (g portGroup) chain(prefix string, d engine.Direction, iface string) *engine.Chain {
	chain := &engine.Chain{Name: prefix + engine.PortsChain(d, iface, g.ports.ID)}
	for _, pc := range g.chains {
		chain.Rules = append(chain.Rules, pc.jumpTo(prefix).always)
	}
	return chain
}
