package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// event makes one random event, or one burst of events that belong together. Some events find nothing to change and do
// nothing.
func (g *generator) event() {
	// The weights say how often an event is chosen, in relation to the others.
	events := []struct {
		weight int
		f      func()
	}{
		{10, g.newPod}, {8, g.relabelPod}, {9, g.endPod}, {6, g.replacePod}, {8, g.changeLinks}, {3, g.renamePorts},
		{3, g.breakStatus}, {2, g.breakRequest}, {2, g.startPod},
		{8, func() { g.put(g.namespace(one(g, someNamespaces...))) }},
		{3, func() {
			g.remove(oracle.Ref{Kind: oracle.KindNamespace, Key: oracle.Key{Name: one(g, someNamespaces...)}})
		}},
		{14, func() { g.put(g.policy()) }}, {6, g.editPolicy}, {6, g.dropPolicy},
		{6, g.changeNAD}, {5, g.dropNAD}, {3, g.restart}, {12, g.openFlows}, {1, g.forgetConnections},
	}
	total := 0
	for _, e := range events {
		total += e.weight
	}
	n := g.IntN(total)
	for _, e := range events {
		if n -= e.weight; n < 0 {
			e.f()
			return
		}
	}
}

// somePod returns a copy of a pod that has not ended, for the caller to change and put; nil when there is none.
func (g *generator) somePod() *corev1.Pod {
	keys := g.podKeys()
	if len(keys) == 0 {
		return nil
	}
	return g.state.Pod(one(g, keys...)).DeepCopy()
}

// relabelPod gives a pod other labels: policies and peers may select it now, or no more.
// The labels may be the same as before.
func (g *generator) relabelPod() {
	if pod := g.somePod(); pod != nil {
		pod.Labels = g.labels()
		g.put(pod)
	}
}

// renamePorts gives a pod other named ports. Rules that name a port mean other numbers then.
func (g *generator) renamePorts() {
	if pod := g.somePod(); pod != nil {
		g.namePorts(pod)
		g.put(pod)
	}
}

// startPod makes a pod run that was pending.
func (g *generator) startPod() {
	if pod := g.somePod(); pod != nil {
		pod.Status.Phase = corev1.PodRunning
		g.put(pod)
	}
}

// endPod terminates a pod, deletes it, or both. Sometimes the pod's network goes before the API server says that the
// pod has ended. Sometimes another pod has its addresses at once, or even before.
func (g *generator) endPod() {
	pod := g.somePod()
	if pod == nil {
		return
	}
	key := oracle.Key{Namespace: pod.Namespace, Name: pod.Name}
	links := g.links[key]
	delete(g.links, key)
	delete(g.broken, pod.UID)
	// late: the addresses move to another pod before the API server reports the end.
	ended, late := g.chance(50), g.chance(30)
	if late || g.chance(30) {
		setLinks(pod, nil)
		g.put(pod)
	}
	twin := late && g.chance(60) && g.makeTwin(pod, links)
	if !twin {
		g.giveBack(links)
	}
	if late && !twin {
		g.newPod()
	}
	if ended {
		pod.Status.Phase = one(g, corev1.PodSucceeded, corev1.PodFailed)
		g.put(pod)
	}
	if !ended || g.chance(40) {
		g.remove(oracle.Ref{Kind: oracle.KindPod, Key: key})
	}
	if g.chance(40) {
		g.newPod()
	}
}

// makeTwin makes a pod with the addresses of another pod, as the migration of a virtual machine does. It is false when
// the name is taken.
func (g *generator) makeTwin(pod *corev1.Pod, links []netLink) bool {
	twin := pod.DeepCopy()
	twin.Name = strings.TrimPrefix(twin.Name, longName) + "-twin"
	key := oracle.Key{Namespace: twin.Namespace, Name: twin.Name}
	if g.state.Pod(key) != nil {
		return false
	}
	g.uids++
	twin.UID = types.UID(fmt.Sprintf("uid-%d", g.uids))
	twin.CreationTimestamp = metav1.Unix(g.now, 0)
	g.links[key] = links
	g.describe(twin)
	g.put(twin)
	return true
}

// replacePod makes another pod of the same name, with or without a deletion before it.
func (g *generator) replacePod() {
	pod := g.somePod()
	if pod == nil {
		return
	}
	key := oracle.Key{Namespace: pod.Namespace, Name: pod.Name}
	g.giveBack(g.links[key])
	delete(g.links, key)
	delete(g.broken, pod.UID)
	if g.chance(50) {
		g.remove(oracle.Ref{Kind: oracle.KindPod, Key: key})
	}
	g.makePod(key)
}

// changeLinks gives a running pod a further interface, takes an interface away, or changes an interface's addresses.
// A pod on its node's network has no interfaces of its own.
func (g *generator) changeLinks() {
	pod := g.somePod()
	if pod == nil || pod.Spec.HostNetwork {
		return
	}
	key := oracle.Key{Namespace: pod.Namespace, Name: pod.Name}
	links := slices.Clone(g.links[key])
	taken := func(iface string) bool {
		return slices.ContainsFunc(links, func(l netLink) bool { return l.Iface == iface })
	}
	switch n := g.IntN(4); {
	case n < 2 && len(links) < 4:
		for _, iface := range []string{"net1", "net2", "net3", "net4"} {
			if !taken(iface) {
				links = append(links, g.link(iface, one(g, someNetworks...)))
				break
			}
		}
	case len(links) > 0:
		i := g.IntN(len(links))
		if n < 3 {
			g.giveBack(links[i : i+1])
			links = slices.Delete(links, i, i+1)
			break
		}
		next := g.link(links[i].Iface, one(g, links[i].network, links[i].network, one(g, someNetworks...)))
		if g.chance(30) && !taken("net5") { // another interface in its place at once
			next.Iface = "net5"
		}
		g.giveBack(links[i : i+1])
		links[i] = next
	}
	g.links[key] = links
	status, isBroken := pod.Annotations[statusAnnotation], g.broken[pod.UID]
	g.describe(pod)
	if status != "" && !isBroken && g.chance(30) { // hot plug: Multus writes the status later
		plugged := pod.DeepCopy()
		g.request(plugged)
		plugged.Annotations[statusAnnotation] = status
		delete(plugged.Annotations, legacyStatusAnnotation)
		g.put(plugged)
		if g.chance(50) {
			return
		}
		g.settle()
	}
	g.put(pod)
}

// breakRequest makes the requested networks of a pod unreadable. The agent must keep the interfaces that it knew of.
// The agent must see both states, so it settles before and after.
func (g *generator) breakRequest() {
	pod := g.somePod()
	if pod == nil || pod.Annotations[networksAnnotation] == "" {
		return
	}
	g.settle()
	pod.Annotations[networksAnnotation] = one(g, "[", `{"name": "one"}`, `[{"name": 1}]`)
	g.put(pod)
	g.broken[pod.UID] = true
	g.settle()
}

// breakStatus makes the network status of a pod unreadable. The agent must keep the interfaces that it knew of. The
// agent must see both states, so it settles before and after.
func (g *generator) breakStatus() {
	pod := g.somePod()
	if pod == nil || pod.Annotations[statusAnnotation] == "" {
		return
	}
	g.settle()
	pod.Annotations[statusAnnotation] = one(g, "{", "nonsense", `{"name": "x"}`, `[{"name": 1}]`)
	g.put(pod)
	g.broken[pod.UID] = true
	g.settle()
}

// somePolicy returns a copy of a policy, or nil.
// The copy can be changed.
func (g *generator) somePolicy() *mnpv1.MultiNetworkPolicy {
	if all := oracle.ObjectsOf[*mnpv1.MultiNetworkPolicy](g.state); len(all) > 0 {
		return one(g, all...).DeepCopy()
	}
	return nil
}

// editPolicy changes a part of a policy.
// It stays the same object, with the same UID.
func (g *generator) editPolicy() {
	p := g.somePolicy()
	if p == nil {
		return
	}
	other := g.policy()
	switch g.IntN(5) {
	case 0:
		p.Annotations = map[string]string{policyForAnnotation: g.policyFor(p.Namespace)}
	case 1:
		p.Spec.PodSelector = other.Spec.PodSelector
	case 2:
		p.Spec.PolicyTypes = other.Spec.PolicyTypes
	case 3:
		if n := len(p.Spec.Ingress); n > 0 {
			p.Spec.Ingress[g.IntN(n)] = mnpv1.MultiNetworkPolicyIngressRule{From: g.peers(), Ports: g.ports()}
		} else {
			p.Spec.Ingress = other.Spec.Ingress
		}
	case 4:
		if n := len(p.Spec.Egress); n > 0 {
			p.Spec.Egress[g.IntN(n)] = mnpv1.MultiNetworkPolicyEgressRule{To: g.peers(), Ports: g.ports()}
		} else {
			p.Spec.Egress = other.Spec.Egress
		}
	}
	g.put(p)
}

// dropPolicy deletes a policy.
func (g *generator) dropPolicy() {
	if p := g.somePolicy(); p != nil {
		g.remove(oracle.RefOf(p))
	}
}

// changeNAD creates or edits the definition of a network.
func (g *generator) changeNAD() { g.put(g.nad(one(g, someNetworks...))) }

// dropNAD deletes the definition of a network. It prefers types that policies do not isolate.
func (g *generator) dropNAD() {
	nads := oracle.ObjectsOf[*netv1.NetworkAttachmentDefinition](g.state)
	if len(nads) == 0 {
		return
	}
	// Only a deletion of such a definition changes verdicts: a network without a definition is isolated.
	open := slices.DeleteFunc(slices.Clone(nads), func(nad *netv1.NetworkAttachmentDefinition) bool {
		return oracle.PluginTypeOf(nad) != "calico"
	})
	if len(open) > 0 && g.chance(60) {
		nads = open
	}
	g.remove(oracle.RefOf(one(g, nads...)))
}

// maxOpened limits how often a case opens connections, because each of them is probed after every step.
const maxOpened = 6

// openFlows opens connections of TCP and UDP between two addresses on a wire. At least one address belongs to a pod;
// the other may be an outsider's.
// The number of calls is limited by maxOpened.
func (g *generator) openFlows() {
	if g.opened >= maxOpened {
		return
	}
	wire := one(g, g.wires...)
	var pods, all []netip.Addr
	for _, key := range g.podKeys() {
		for _, l := range g.links[key] {
			if l.Wire == wire {
				pods = append(pods, l.Addrs...)
			}
		}
	}
	for _, o := range g.others {
		if o.Wire == wire {
			all = append(all, o.Addr)
		}
	}
	all = append(all, pods...)
	if len(pods) == 0 {
		return
	}
	from, to := one(g, pods...), one(g, all...)
	if from.Is4() != to.Is4() || from == to {
		return
	}
	// The pod is the server in half of the cases.
	if g.chance(50) {
		from, to = to, from
	}
	e, err := parseExpectation(fmt.Sprintf("%s -> %s tcp/%d udp/%d", from, to, one(g, somePorts...), one(g, somePorts...)), true)
	if err != nil {
		panic(err) // it is of that form
	}
	g.opened++
	g.happen(Event{Open: &e})
}

// forgetConnections deletes the entries of connection tracking, as an administrator with "conntrack -F" does. Without
// connections the event would show nothing.
func (g *generator) forgetConnections() {
	if g.opened > 0 {
		g.happen(Event{Forget: true})
	}
}

// restart ends the agent and starts another. Sometimes packets are sent, or objects change, between the two. A new
// agent cannot know the interfaces of pods whose annotations are unreadable, so there must be no such pods.
func (g *generator) restart() {
	if len(g.broken) > 0 {
		return
	}
	g.events = append(g.events, Event{Stop: true})
	if g.chance(30) {
		g.quiet()
	}
	for range g.IntN(4) {
		one(g, g.newPod, g.relabelPod, g.dropPolicy, g.editPolicy, g.endPod)()
	}
	g.events = append(g.events, Event{Start: true})
}
