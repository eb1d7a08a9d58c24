package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// podAttacks are attacks by pods and networks in the API and in the container runtime.
// The tenant may create pods, write their labels and annotations, and choose the node. The kubelet and Multus only
// correct some of that, later.
func podAttacks() []attack {
	return []attack{
		{name: "peers-flap", does: "200 pods that the victim allows join and leave its peers all the time", start: flappingPeers, quick: true},
		{name: "peers-2500", does: "2,500 pods that the victim allows claim 256 addresses each", start: manyPeerAddresses},
		{name: "peer-claims-friend", does: "pods that the victim allows claim the address of the victim's friend, and are deleted again and again", start: claimFriend},
		{name: "peer-claims-stranger", does: "a pod that never starts on its node, and that the victim allows, claims the stranger's address", start: claimStranger},
		{name: "status-huge", does: "50 pods with a network status of 256 KB: thousands of interfaces and addresses", start: hugeStatus},
		{name: "requests-20000", does: "pods request 20,000 networks", start: manyRequests},
		{name: "labels-flap", does: "pods on the node change their labels all the time, and with them the policies that select them", start: flappingLabels},
		{name: "status-flaps", does: "the network status of pods on the node changes all the time", start: flappingStatus},
		{name: "same-name", does: "a pod is deleted and created again under its name all the time, and its sandbox ends late", start: sameName},
		{name: "ghosts-1000", does: "1,000 pods of this node are not in its container runtime", start: ghosts},
		{name: "starts-100", does: "100 pods with large policies and 100 KB of annotations start at the same time", start: manyStarts},
		{name: "mirror", does: "pods claim to be mirror pods of the victim's pods", start: mirrors},
		{name: "managed-fields", does: "the creator of a pod forges managedFields, so that Multus seems to have written an empty network status", start: forgedManagedFields},
		{name: "networks-flap", does: "networks with huge and invalid configurations change their plugin type all the time", start: flappingNetworks},
		{name: "sandboxes-flap", does: "the sandboxes of pods are created again all the time, as in a crash loop", start: flappingSandboxes},
	}
}

// evilAddress is an address of the attacker.
// Addresses start at 10.80.0.0 and are every other address, so that no two form a range. i is below 2^23.
func evilAddress(i int) netip.Addr {
	i += 80 << 15
	return netip.AddrFrom4([4]byte{10 + byte(i>>23), byte(i >> 15), byte(i >> 7), byte(i << 1)})
}

// flappingPeers changes the members of the victim's own peer group, and with them the tables of the victim's pods.
// That is allowed: the victim selects pods of all namespaces. But these changes must neither delay the victim's
// own changes nor lose allowed packets.
func flappingPeers(ctx context.Context, t *tenant) error {
	const peers = 200
	status := func(i int) string { return networkStatus(victimNetwork, evilAddress(i)) }
	if err := t.createPods(ctx, peers, map[string]string{"role": metricsLabel}, status); err != nil {
		return err
	}
	// All pods leave, then all join, as i runs through the pods of a loop.
	roles := []string{"none", metricsLabel}
	for n := range 8 {
		t.loop(func(ctx context.Context, i int) error {
			name := fmt.Sprintf("peer-%d", (8*i+n)%peers)
			return t.api.merge(ctx, pods, evilNamespace, name, object{"metadata": object{"labels": object{"role": roles[i/(peers/8)%2]}}})
		})
	}
	return nil
}

// manyPeerAddresses makes the sets in the victim's pods large: in the memory of the agent and of the kernel, and in the time
// that a new pod of the victim needs to start.
// The limits are 64 addresses of a pod (pod-addresses) and 2,500 of a namespace (namespace-addresses). Addresses of
// the tenant beyond them are no peers; the victim's own peers must stay: lostAtMost.
func manyPeerAddresses(ctx context.Context, t *tenant) error {
	return t.createPods(ctx, 2_500, map[string]string{"role": metricsLabel}, func(i int) string {
		var addrs []netip.Addr
		for k := range 256 {
			addrs = append(addrs, evilAddress(256*i+k))
		}
		return networkStatus(victimNetwork, addrs...)
	})
}

// claimFriend makes two pods have the same address. The end of a pod must not take the address from the other.
// The sets must count the owners of an address: if a pod of the tenant took the friend's address away, the friend's
// packets would be lost: lostAtMost.
func claimFriend(ctx context.Context, t *tenant) error {
	for n := range 4 {
		name := fmt.Sprintf("claim-%d", n)
		t.loop(func(ctx context.Context, _ int) error {
			o := podObject(name, "node-2", map[string]string{"role": metricsLabel},
				map[string]string{statusAnnotation: networkStatus(victimNetwork, addresses["friend"])})
			if _, err := t.api.create(ctx, pods, evilNamespace, o); err != nil {
				return err
			}
			return t.api.remove(ctx, pods, evilNamespace, name)
		})
	}
	return nil
}

// hugeStatus has many interfaces in half of the pods, and many addresses on an interface in the others.
// Half of the pods are on this node, where interfaces may need isolation; the others are peers only. The limits are
// 64 interfaces (pod-interfaces) and 64 addresses (pod-addresses) of a pod.
func hugeStatus(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}, "ingress": []object{{"from": []object{{"podSelector": object{}}}}}}); err != nil {
		return err
	}
	interfaces := "[" + repeat(3_600, ",", func(i int) string {
		return fmt.Sprintf(`{"name": "evil/net", "interface": "i%d", "ips": ["%s"]}`, i, evilAddress(i))
	}) + "]"
	one := "[" + `{"name": "evil/net", "interface": "net1", "ips": [` + repeat(15_000, ",", func(i int) string { return `"` + evilAddress(i).String() + `"` }) + `]}]`
	return t.many(50, func(i int) error {
		node, status := nodeName, interfaces
		if i%2 == 0 {
			status = one
		}
		if i%4 < 2 {
			node = "node-2"
		}
		return t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("huge-%d", i), node, nil, map[string]string{statusAnnotation: status}))
	})
}

// manyRequests makes the agent expect an interface for each requested network.
// That is 200,000 expected interfaces in ten pods. The limit pod-interfaces is 64.
func manyRequests(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", networkNames(2_000), object{"podSelector": object{}}); err != nil {
		return err
	}
	request := repeat(20_000, ",", func(i int) string { return fmt.Sprintf("n%d@i%d", i, i) })
	for i := range 10 {
		o := podOptions{annotations: map[string]string{requestAnnotation: request}, unreported: true}
		if _, err := t.startPod(ctx, fmt.Sprintf("pod-%d", i), o); err != nil {
			return err
		}
	}
	return nil
}

// flappingLabels makes other policies select a pod with each change.
// Each change replaces the chains of 20 policies in a pod by others. The queue must give the victim's pods their
// turn: ownAtMost.
func flappingLabels(ctx context.Context, t *tenant) error {
	list, err := t.startPods(ctx, 20, podOptions{labels: map[string]string{"app": "a"}})
	if err != nil {
		return err
	}
	for _, app := range []string{"a", "b"} {
		for i := range 20 {
			spec := object{"podSelector": matchLabel("app", app), "ingress": []object{{"from": []object{{"ipBlock": object{"cidr": block(i)}}, podsWith("app", "a")}}}}
			if err := t.policy(ctx, fmt.Sprintf("%s-%d", app, i), "net", spec); err != nil {
				return err
			}
		}
	}
	apps := []string{"b", "a", "none"}
	for n := range 8 {
		t.loop(func(ctx context.Context, i int) error {
			name := list[(8*i+n)%len(list)].pod.Name
			return t.api.merge(ctx, pods, evilNamespace, name, object{"metadata": object{"labels": object{"app": apps[i%3]}}})
		})
	}
	return nil
}

// flappingStatus overwrites the status that Multus wrote: a tenant may change the annotations of its pods.
// Some values cannot be parsed, some name a network or an address of the victim. Neither may open the pod nor change
// the victim's groups.
func flappingStatus(ctx context.Context, t *tenant) error {
	list, err := t.startPods(ctx, 20, podOptions{})
	if err != nil {
		return err
	}
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}, "ingress": []object{{"from": []object{{"podSelector": object{}}}}}}); err != nil {
		return err
	}
	status := []string{"[]", "{", networkStatus("evil/net", evilAddress(1)), networkStatus("evil/other", evilAddress(2)), networkStatus("victim/net", addresses["stranger"])}
	for n := range 8 {
		t.loop(func(ctx context.Context, i int) error {
			name := list[(8*i+n)%len(list)].pod.Name
			return t.api.merge(ctx, pods, evilNamespace, name, object{"metadata": object{"annotations": object{statusAnnotation: status[i%len(status)]}}})
		})
	}
	return nil
}

// sameName makes events of an earlier pod arrive after events of the next pod with the same name.
// The agent must tell pods apart by UID. With names only, the end of the earlier sandbox would remove the rules of
// the next pod.
func sameName(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}}); err != nil {
		return err
	}
	var last *runningPod
	t.loop(func(ctx context.Context, _ int) error {
		p, err := t.startPod(ctx, "same", podOptions{alone: true})
		if err != nil {
			return err
		}
		// The earlier sandbox ends only when the next pod runs.
		if last != nil {
			t.endPods(ctx, last)
		}
		last = p
		return t.api.remove(ctx, pods, evilNamespace, "same")
	})
	return nil
}

// ghosts makes the agent look for sandboxes that never come.
// The agent looks again and again for a sandbox of a local pod. Questions about 1,000 pods must not slow down the
// answers about the victim's pods that start: hookAtMost.
func ghosts(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}, "ingress": []object{{"from": []object{{"podSelector": object{}}}}}}); err != nil {
		return err
	}
	return t.many(1_000, func(i int) error {
		return t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("ghost-%d", i), nodeName, map[string]string{"app": "a"},
			map[string]string{requestAnnotation: "net", statusAnnotation: networkStatus("evil/net", evilAddress(i))}))
	})
}

// manyStarts starts all pods at once. The runtime asks the agent about the pods in turn, and the victim's pods wait in the same
// queue.
// The budget of kernel time for starts makes the tenant's pods start closed, so that the victim's pods wait no longer
// than hookAtMost.
func manyStarts(ctx context.Context, t *tenant) error {
	err := t.many(500, func(i int) error {
		return t.policy(ctx, fmt.Sprintf("p-%d", i), "net", object{"podSelector": object{}, "ingress": []object{{
			"from": []object{{"ipBlock": object{"cidr": block(i)}}}, "ports": []object{{"port": i + 1}},
		}}})
	})
	if err != nil {
		return err
	}
	// 100 KB of annotations make the message of the runtime large, which has the pod in it.
	o := podOptions{annotations: map[string]string{"text": strings.Repeat("a", 100_000)}, held: true}
	list, err := t.startPods(ctx, 100, o)
	if err != nil {
		return err
	}
	// held pods are complete; only the runtime's question is left, so all questions come at the same time.
	start := time.Now()
	var all sync.WaitGroup
	for _, p := range list {
		all.Go(func() {
			if err := t.runtime.run(ctx, p.pod); err != nil {
				t.note("a pod of the attacker did not start")
			}
		})
	}
	all.Wait()
	t.note("they started within %s", round(time.Since(start)))
	return nil
}

// mirrors creates pods that claim to be the API's picture of static pods, whose UIDs are those of the victim's pods.
// If the agent believed them, it could apply policies of the namespace evil in the network namespaces of the victim's
// pods.
func mirrors(ctx context.Context, t *tenant) error {
	// The policy would open the victim's pods, if it selected them: leaksAtMost.
	if err := t.policy(ctx, "open", "victim/net,net", object{"podSelector": object{}, "ingress": []object{{}}, "egress": []object{{}}}); err != nil {
		return err
	}
	for _, name := range []string{"server", "client"} {
		uid := t.runtime.uidOf("victim-" + name)
		for _, as := range []string{name, "mirror-" + name} {
			o := podObject(as, nodeName, map[string]string{"app": name}, map[string]string{
				"kubernetes.io/config.mirror": uid, "kubernetes.io/config.hash": uid, "kubernetes.io/config.source": "file",
				statusAnnotation: networkStatus(victimNetwork, addresses[name]), requestAnnotation: victimNetwork,
			})
			if err := t.create(ctx, pods, evilNamespace, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgedManagedFields changes managedFields after the creation of the pod: the API server lets everybody who may change
// an object change them, and only ignores them when the object is created. A scheduling gate gives the time for that. The
// agent must not conclude from managedFields that Multus wrote the status.
func forgedManagedFields(ctx context.Context, t *tenant) error {
	// entry says that a manager owned an annotation at a time.
	entry := func(manager, subresource, annotation, at string) object {
		return object{
			"manager": manager, "operation": "Update", "apiVersion": "v1", "time": at, "subresource": subresource, "fieldsType": "FieldsV1",
			"fieldsV1": object{"f:metadata": object{"f:annotations": object{"f:" + annotation: object{}}}},
		}
	}
	forged := object{"metadata": object{"managedFields": []object{
		entry("kubectl", "", requestAnnotation, "2020-01-01T00:00:00Z"),
		// The time of Multus is in the future, so that it comes after everything.
		entry("multus", "status", statusAnnotation, "2099-01-01T00:00:00Z"),
	}}}
	return startUnruly(ctx, t, podOptions{annotations: map[string]string{statusAnnotation: "[]"}, forged: forged})
}

// flappingNetworks makes policies isolate a network, and not isolate it, by its plugin type.
// Each edit parses up to 500 KB and may change the interfaces of ten pods.
func flappingNetworks(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 10, podOptions{}); err != nil {
		return err
	}
	if err := t.policy(ctx, "p", "net,a,b,c", object{"podSelector": object{}}); err != nil {
		return err
	}
	plugins := `{"plugins": [` + repeat(20_000, ",", func(i int) string { return fmt.Sprintf(`{"type": "t%d"}`, i) }) + `]}`
	// Enforced plugins, an unknown plugin, JSON that is invalid or of another type, and large texts.
	configs := []string{
		`{"type": "macvlan"}`, `{"type": "bridge"}`, `{"type": "none"}`, `{`, ``, `null`, `[]`, `{"type": 1}`, `{"plugins": {}}`, plugins,
		`{"type": "` + strings.Repeat("x", 500_000) + `"}`,
	}
	for _, name := range []string{"net", "a", "b", "c"} {
		if name != "net" {
			if err := t.create(ctx, nads, evilNamespace, nadObject(name, configs[0])); err != nil {
				return err
			}
		}
		t.loop(func(ctx context.Context, i int) error {
			return t.api.merge(ctx, nads, evilNamespace, name, object{"spec": object{"config": configs[i%len(configs)]}})
		})
	}
	return nil
}

// flappingSandboxes makes the agent forget and enforce the same pods again and again.
// Each new sandbox is a new network namespace for the agent, which opens it and applies the whole table.
func flappingSandboxes(ctx context.Context, t *tenant) error {
	list, err := t.startPods(ctx, 10, podOptions{})
	if err != nil {
		return err
	}
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}}); err != nil {
		return err
	}
	for n := range 2 {
		t.loop(func(ctx context.Context, i int) error {
			again := list[(2*i+n)%len(list)].pod
			t.runtime.end(ctx, again)
			// Each sandbox needs an identifier of its own, as the runtime never uses an identifier twice.
			again.SandboxID = fmt.Sprintf("%s-%d-%d", again.UID, n, i)
			t.atEnd(func() { t.runtime.end(context.WithoutCancel(ctx), again) })
			return t.runtime.run(ctx, again)
		})
	}
	return nil
}
