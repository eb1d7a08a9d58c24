package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// victimNamespace is the namespace of the victim, victimNetwork its network.
const (
	victimNamespace = "victim"
	victimNetwork   = "victim/net"
)

// Annotations of Multus and of policies.
const (
	requestAnnotation = "k8s.v1.cni.cncf.io/networks"
	statusAnnotation  = "k8s.v1.cni.cncf.io/network-status"
	policyAnnotation  = "k8s.v1.cni.cncf.io/policy-for"

	legacyStatusAnnotation = "k8s.v1.cni.cncf.io/networks-status"
)

// addresses are the hosts of the victim's network.
// The node of the agent has server and client; the others are peers or senders, without an agent.
var addresses = map[string]netip.Addr{
	"server":   netip.MustParseAddr("10.9.0.1"), // pod of the node, isolated in ingress
	"friend":   netip.MustParseAddr("10.9.0.2"), // pod of another node; a peer of server
	"stranger": netip.MustParseAddr("10.9.0.3"), // no pod; a peer of nobody
	"client":   netip.MustParseAddr("10.9.0.4"), // pod of the node, isolated in egress
	"service":  netip.MustParseAddr("10.9.0.5"), // pod of another node; a peer of client
	"outside":  netip.MustParseAddr("10.9.0.6"), // no pod; a peer of nobody
	"mover":    netip.MustParseAddr("10.9.0.7"), // pod of another node; a peer of server while its label says so
	"block":    netip.MustParseAddr("10.9.0.8"), // no pod; a peer of server while a policy has its address
}

// starters is the number of hosts for pods that start in turn.
const starters = 4

// starterAddress is the address of host number i. Pods that start after each other in a host have the same address.
func starterAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 1, byte(i + 1)}) }

// metricsLabel is the label by which the victim lets pods of all namespaces in. A tenant may have such pods; then their
// addresses, and no others, are peers of the victim.
const metricsLabel = "metrics"

// scrapePolicies is the number of the victim's policies that let the pods with metricsLabel in, besides the policy server.
const scrapePolicies = 10

// victim is a namespace with its owner and its pods. No other tenant may hurt the enforcement of its policies.
// It has all kinds of policies whose enforcement the attacks try to delay or to open.
type victim struct {
	// user is the owner of the namespace, admin the cluster
	admin, user *client
	runtime     *containerRuntime
	network     *lab.Lab
	hosts       map[string]*lab.Host
	receiver    *receiver // of server
	beams       []*beam   // of mover and block
	watch       *watch
	// starter is the number of the next host for a pod that starts
	starter int // the next
	started int // pods so far
	typos   int // invalid policies so far
}

// newVictim makes the network, the namespace and its pods.
// With an error it may return a victim that must still be closed.
func newVictim(ctx context.Context, admin, user *client, r *containerRuntime) (*victim, error) {
	v := &victim{admin: admin, user: user, runtime: r, hosts: map[string]*lab.Host{}}
	var err error
	if v.network, err = lab.New(); err != nil {
		return nil, err
	}
	if err := v.makeHosts(); err != nil {
		return v, err
	}
	if err := v.createObjects(ctx); err != nil {
		return v, err
	}
	v.watch = newWatch(ctx, admin)
	if v.receiver, err = newReceiver(v.hosts["server"]); err != nil {
		return v, err
	}
	for _, name := range []string{"mover", "block"} {
		b, err := startBeam(v.hosts[name], addresses["server"])
		if err != nil {
			return v, err
		}
		v.beams = append(v.beams, b)
	}
	return v, nil
}

// makeHosts creates a network namespace for each address and starter, all on a bridge.
func (v *victim) makeHosts() error {
	all := map[string]netip.Addr{}
	for name, addr := range addresses {
		all[name] = addr
	}
	for i := range starters {
		all[fmt.Sprintf("starter-%d", i)] = starterAddress(i)
	}
	for name, addr := range all {
		h, err := v.network.Host(name, netip.PrefixFrom(addr, 16))
		if err != nil {
			return err
		}
		v.hosts[name] = h
	}
	return nil
}

// close lets go of the network.
// It ends the beams first.
func (v *victim) close() error {
	for _, b := range v.beams {
		b.end()
	}
	if v.receiver != nil {
		v.receiver.close()
	}
	return v.network.Close()
}

// forgetArrivals starts new counts of the beams.
// It must be called when the policies are in force: before, forbidden datagrams passed.
func (v *victim) forgetArrivals() {
	for _, name := range []string{"mover", "block"} {
		v.receiver.mark(addresses[name])
	}
}

// createObjects creates the network, the pods and the policies of the victim.
func (v *victim) createObjects(ctx context.Context) error {
	if _, err := v.user.create(ctx, nads, victimNamespace, nadObject("net", `{"cniVersion": "0.3.1", "type": "macvlan"}`)); err != nil {
		return err
	}
	for _, p := range []struct{ name, app, node string }{
		{"server", "server", nodeName},
		{"client", "client", nodeName},
		{"friend", "friend", "node-2"},
		{"service", "service", "node-2"},
		{"mover", "none", "node-2"},
	} {
		if err := v.createPod(ctx, p.name, p.app, p.node); err != nil {
			return err
		}
	}
	// Each lets the pods of all namespaces with the label in, and has a peer group of its own.
	for i := range scrapePolicies {
		spec := object{"ingress": []object{{
			"from": []object{podsWith("app", fmt.Sprintf("scraper-%d", i)), metricsPeer()}, "ports": []object{{"port": 9100 + i}},
		}}}
		if err := v.createPolicy(ctx, fmt.Sprintf("scrape-%d", i), "server", spec); err != nil {
			return err
		}
	}
	return errors.Join(
		v.createPolicy(ctx, "server", "server", object{"ingress": []object{{
			"from":  []object{podsWith("app", "friend"), metricsPeer()},
			"ports": floodPorts(),
		}}}),
		// The policy extra allows nobody; the measurement changes its block.
		v.createPolicy(ctx, "extra", "server", blockSpec(noBlock)),
		v.createPolicy(ctx, "client", "client", object{
			"policyTypes": []string{"Egress"}, "egress": []object{{"to": []object{podsWith("app", "service")}, "ports": floodPorts()}},
		}),
	)
}

// metricsPeer is the peer "pods of all namespaces with the label metrics".
func metricsPeer() object {
	return object{"namespaceSelector": object{}, "podSelector": matchLabel("role", metricsLabel)}
}

// floodPorts are the ports of the floods and beams.
// They cover FloodPort up to beamPort of UDP, and FloodPort of TCP.
func floodPorts() []object {
	return []object{{"protocol": "UDP", "port": lab.FloodPort, "endPort": beamPort}, {"protocol": "TCP", "port": lab.FloodPort}}
}

// noBlock is an address that no host has.
const noBlock = "192.0.2.1/32"

// blockSpec is the part of the policy extra that the measurements change.
// Nothing but the block changes, so an edit is the smallest possible change of a policy.
func blockSpec(cidr string) object {
	return object{"ingress": []object{{"from": []object{{"ipBlock": object{"cidr": cidr}}}, "ports": floodPorts()}}}
}

// createPod creates a pod with an address on the victim's network. A pod of the node has a sandbox.
// The address is that of the host with the same name.
func (v *victim) createPod(ctx context.Context, name, app, node string) error {
	labels := map[string]string{"app": app}
	annotations := map[string]string{requestAnnotation: "net"}
	uid, err := v.user.create(ctx, pods, victimNamespace, podObject(name, node, labels, annotations))
	if err != nil {
		return err
	}
	if node == nodeName {
		path, err := v.runtime.mount(v.hosts[name], "victim-"+name)
		if err != nil {
			return err
		}
		v.runtime.add(newRuntimePod("victim-"+name, uid, victimNamespace, name, path, labels, annotations))
	}
	return v.admin.report(ctx, victimNamespace, name, networkStatus(victimNetwork, addresses[name]))
}

// createPolicy creates a policy for the victim's network.
func (v *victim) createPolicy(ctx context.Context, name, app string, spec object) error {
	spec["podSelector"] = matchLabel("app", app)
	_, err := v.user.create(ctx, policies, victimNamespace, policyObject(name, "net", spec))
	return err
}

// startingPod creates a pod of the policy server that is about to start in a host.
// With an error, the result has no sandbox, unless only the mount failed.
func (v *victim) startingPod(ctx context.Context, h *lab.Host) (cluster.Pod, error) {
	v.started++
	name := fmt.Sprintf("starting-%d", v.started)
	labels := map[string]string{"app": "server"}
	annotations := map[string]string{requestAnnotation: "net"}
	uid, err := v.user.create(ctx, pods, victimNamespace, podObject(name, nodeName, labels, annotations))
	if err != nil {
		return cluster.Pod{}, err
	}
	id := "victim-" + name
	path, err := v.runtime.mount(h, id)
	return newRuntimePod(id, uid, victimNamespace, name, path, labels, annotations), err
}
