package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// policyAttacks are attacks by policies.
// All of these policies are valid by the schema, or only too large; each is an amount of work for the agent.
func policyAttacks() []attack {
	return []attack{
		{name: "policies-2000", does: "2,000 policies select 10 pods", start: manyPolicies(10), quick: true},
		{name: "policies-100-pods", does: "500 policies, each with its own peers, select 100 pods", start: manyPolicies(100)},
		{name: "policy-edited", does: "four policies are edited as fast as the API server allows", start: editedPolicies},
		{name: "policy-churn", does: "policies, pods and networks are created and deleted as fast as the API server allows", start: churn},
		{name: "selectors-huge", does: "selectors with 20,000 labels, 5,000 matchExpressions and 50,000 values", start: hugeSelectors},
		{name: "everything-selected", does: "500 policies allow all pods of all namespaces, and 1,500 pods exist", start: everythingSelected},
		{name: "blocks-20000", does: "policies with 20,000 CIDRs, with 20,000 excepts, and with overlapping CIDRs", start: manyBlocks},
		{name: "blocks-adjacent", does: "20,000 adjacent CIDRs join into one range and split again, again and again", start: adjacentBlocks},
		{name: "blocks-100-pods", does: "policies with 80,000 CIDRs select 100 pods", start: blocksInManyPods},
		{name: "sets-100-pods", does: "1,000 rules, each with its own list of peers, apply to 100 pods", start: setsInManyPods, quick: true},
		{name: "named-ports", does: "policies with thousands of named ports, and 100 pods with 250 named ports each", start: namedPorts},
		{name: "namespace-deleted", does: "a namespace with 1,000 policies and 10 pods is deleted", start: deletedNamespace},
	}
}

// manyPolicies returns an attack on so many pods. Policies beyond the limit of a pod need no memory there.
// The limit pod-policies is 500.
func manyPolicies(onPods int) func(ctx context.Context, t *tenant) error {
	return func(ctx context.Context, t *tenant) error {
		if _, err := t.startPods(ctx, onPods, podOptions{}); err != nil {
			return err
		}
		// Each policy has its own block, peers and port, so no two policies share a set or a rule.
		return t.many(min(2_000, 50_000/onPods), func(i int) error {
			return t.policy(ctx, fmt.Sprintf("p-%d", i), "net", object{"podSelector": object{}, "ingress": []object{{
				"from":  []object{{"ipBlock": object{"cidr": block(i)}}, podsWith("app", fmt.Sprint(i))},
				"ports": []object{{"port": i + 1}},
			}}})
		})
	}
}

// editedPolicies changes rules and peers with each edit.
// An edit changes the tables of ten pods. The victim's changes must not wait for the backlog: ownAtMost.
func editedPolicies(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 10, podOptions{}); err != nil {
		return err
	}
	for n := range 4 {
		name := fmt.Sprintf("p-%d", n)
		spec := func(i int) object {
			return object{"podSelector": object{}, "ingress": []object{
				{"from": []object{{"ipBlock": object{"cidr": block(i % 1000)}}}, "ports": []object{{"port": i%1000 + 1}}},
				{"from": []object{podsWith("a", fmt.Sprint(i%1000))}},
			}}
		}
		if err := t.policy(ctx, name, "net", spec(0)); err != nil {
			return err
		}
		t.loop(func(ctx context.Context, i int) error {
			return t.api.merge(ctx, policies, evilNamespace, name, object{"spec": spec(i)})
		})
	}
	return nil
}

// churn leaves nothing behind: each object is deleted as soon as it exists.
// The agent must forget all of it: goroutines and descriptors are counted after the attack. The pods claim the
// stranger's address and the labels of the victim's friend, but in the namespace evil, so no packet of the stranger
// may pass.
func churn(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 4, podOptions{}); err != nil {
		return err
	}
	for n := range 6 {
		name := fmt.Sprintf("churn-%d", n)
		t.loop(func(ctx context.Context, i int) error {
			status := map[string]string{statusAnnotation: networkStatus("evil/net", addresses["stranger"])}
			for resource, o := range map[string]object{
				policies: policyObject(name, "net", object{"podSelector": object{}, "ingress": []object{{"ports": []object{{"port": i%65535 + 1}}}}}),
				pods:     podObject(name, "node-2", map[string]string{"app": "friend", "role": "x"}, status),
				nads:     nadObject(name, `{"cniVersion": "0.3.1", "type": "bridge"}`),
			} {
				if _, err := t.api.create(ctx, resource, evilNamespace, o); err != nil {
					return err
				}
				if err := t.api.remove(ctx, resource, evilNamespace, name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return nil
}

// hugeSelectors uses the selectors both for the pods of a policy and for its peers.
// Matching a selector against every pod must not cost the product of labels and requirements.
func hugeSelectors(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 4, podOptions{labels: map[string]string{"app": "a"}}); err != nil {
		return err
	}
	labels := `{"matchLabels": {` + repeat(20_000, ",", func(i int) string { return fmt.Sprintf(`"k%d": "v%d"`, i, i) }) + `}}`
	expressions := `{"matchExpressions": [` + repeat(5_000, ",", func(i int) string {
		return fmt.Sprintf(`{"key": "k%d", "operator": "NotIn", "values": ["a", "b", "v%d"]}`, i, i)
	}) + `]}`
	values := `{"matchExpressions": [{"key": "app", "operator": "In", "values": [` +
		repeat(50_000, ",", func(i int) string { return fmt.Sprintf(`"v%d"`, i) }) + `]}]}`
	for i, s := range []string{labels, expressions, values} {
		// As target the selector chooses pods of the policy; as peer it makes groups.
		for place, spec := range map[string]string{
			"target": `{"podSelector": ` + s + `}`,
			"peer":   `{"podSelector": {}, "ingress": [{"from": [{"podSelector": ` + s + `}, {"namespaceSelector": ` + s + `}]}]}`,
		} {
			if err := t.policy(ctx, fmt.Sprintf("%s-%d", place, i), "net", rawSpec(spec)); err != nil {
				return err
			}
		}
	}
	return nil
}

// everythingSelected gives each policy a peer group of its own, with all pods of the cluster as members.
// 500 groups with 1,500 members each are 750,000 memberships, which the limit namespace-members (250,000) bounds. A
// change of a single pod touches all groups.
func everythingSelected(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 10, podOptions{}); err != nil {
		return err
	}
	err := t.many(500, func(i int) error {
		return t.policy(ctx, fmt.Sprintf("p-%d", i), "net", object{"podSelector": object{}, "ingress": []object{{
			"from":  []object{{"namespaceSelector": object{}, "podSelector": object{}}, podsWith("app", fmt.Sprint(i))},
			"ports": []object{{"port": i + 1}},
		}}})
	})
	if err != nil {
		return err
	}
	return t.createPods(ctx, 1_500, map[string]string{"app": "1"}, func(i int) string { return networkStatus("evil/net", evilAddress(i)) })
}

// cidrs is a JSON list of n CIDRs, or their ipBlocks.
// from must be a JSON list of peers; the function gives the elements of the list without brackets.
func cidrs(n int, text func(i int) string) string {
	return repeat(n, ",", func(i int) string { return `{"ipBlock": {"cidr": "` + text(i) + `"}}` })
}

// manyBlocks exceeds the limits of the agent with two of its policies.
// The limits of a policy are 5,000 peers (policy-peers) and 20,000 CIDRs (policy-blocks). Overlapping CIDRs merge
// into few ranges.
func manyBlocks(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 4, podOptions{}); err != nil {
		return err
	}
	overlapping := func(i int) string { return fmt.Sprintf("10.%d.0.0/%d", i%256, 8+i/256%25) }
	for name, from := range map[string]string{"blocks": cidrs(20_000, block), "overlapping": cidrs(6_400, overlapping)} {
		if err := t.policy(ctx, name, "net", rawSpec(`{"podSelector": {}, "ingress": [{"from": [`+from+`]}]}`)); err != nil {
			return err
		}
	}
	return t.policy(ctx, "excepts", "net", onePeer(20_000, 0))
}

// adjacentBlocks replaces nearly all ranges of a set with each edit.
// The set has 10,000 ranges, then a single range. The difference is 10,000 deletions and an addition, at each edit.
func adjacentBlocks(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	// The even blocks are always there. Together with the odd blocks they form a single range.
	odd := func(i int) string { return fmt.Sprintf("10.%d.%d.%d/32", 100+i>>15, i>>7&255, i<<1&255|1) }
	spec := func(with bool) json.RawMessage {
		from := cidrs(10_000, block)
		if with {
			from += "," + cidrs(10_000, odd)
		}
		return rawSpec(`{"podSelector": {}, "ingress": [{"from": [` + from + `]}]}`)
	}
	if err := t.policy(ctx, "p", "net", spec(false)); err != nil {
		return err
	}
	specs := map[bool]json.RawMessage{true: spec(true), false: spec(false)}
	t.loop(func(ctx context.Context, i int) error {
		return t.api.merge(ctx, policies, evilNamespace, "p", object{"spec": specs[i%2 == 0]})
	})
	return nil
}

// onePeer returns a policy spec with a single peer. Its n excepts split its block into more than n ranges.
// The excepts start at block number first, so two policies with different numbers have different sets.
func onePeer(n, first int) json.RawMessage {
	excepts := repeat(n, ",", func(i int) string { return `"` + block(first+i) + `"` })
	return rawSpec(`{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [` + excepts + `]}}]}]}`)
}

// blocksInManyPods stays below the limits of each policy and pod. All pods together need much kernel memory.
// The node's budget of kernel memory must keep the total in bounds, and share it fairly among namespaces: the
// kernel's part of the memory and the victim's starts show it.
func blocksInManyPods(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 100, podOptions{}); err != nil {
		return err
	}
	const blocks = 19_900
	for n := range 4 {
		if err := t.policy(ctx, fmt.Sprintf("p-%d", n), "net", onePeer(blocks, n)); err != nil {
			return err
		}
	}
	return nil
}

// setsInManyPods does the same with sets, which need kernel memory even when they are small.
// 999 sets in each of 100 pods are nearly 100,000 sets. The policy stays below policy-rules.
func setsInManyPods(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 100, podOptions{}); err != nil {
		return err
	}
	return t.policy(ctx, "p", "net", peerLists(999))
}

// namedPorts has the agent resolve names of ports of both the peers and the selected pods.
// A name can mean another number in each pod, so the agent must look at the ports of each peer. The limits are 100
// named ports of a pod (pod-ports) and 5,000 ports of a policy (policy-ports).
func namedPorts(ctx context.Context, t *tenant) error {
	name := func(i int) string { return fmt.Sprintf("p%d", i) }
	var ports []object
	for i := range 250 {
		ports = append(ports, object{"name": name(i), "containerPort": i + 1})
	}
	if err := t.many(100, func(i int) error {
		o := podOptions{ports: ports, labels: map[string]string{"app": "a"}, annotations: map[string]string{
			statusAnnotation: networkStatus("evil/net", evilAddress(i)),
		}}
		body := o.body(fmt.Sprintf("peer-%d", i))
		// Pods of another node are peers only; the agent resolves their ports for egress.
		body["spec"].(object)["nodeName"] = "node-2"
		return t.create(ctx, pods, evilNamespace, body)
	}); err != nil {
		return err
	}
	if _, err := t.startPods(ctx, 10, podOptions{ports: ports}); err != nil {
		return err
	}
	// 5,000 names are requested, of which the pods have 250.
	list := repeat(5_000, ",", func(i int) string { return `{"port": "` + name(i) + `"}` })
	for direction, peers := range map[string]string{"ingress": "from", "egress": "to"} {
		spec := fmt.Sprintf(`{"podSelector": {}, %q: [{%q: [{"podSelector": {}}], "ports": [%s]}]}`, direction, peers, list)
		if err := t.policy(ctx, direction, "net", rawSpec(spec)); err != nil {
			return err
		}
	}
	return nil
}

// deletedNamespace is about the second namespace of the attacker. An administrator deletes it.
// The namespace controller deletes 1,000 policies and 10 pods, in an order that the agent does not know.
func deletedNamespace(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 10, podOptions{namespace: evilNamespace2}); err != nil {
		return err
	}
	err := t.many(1_000, func(i int) error {
		return t.create(ctx, policies, evilNamespace2, policyObject(fmt.Sprintf("p-%d", i), "net", object{
			"podSelector": object{}, "ingress": []object{{"from": []object{{"ipBlock": object{"cidr": block(i)}}}}},
		}))
	})
	if err != nil {
		return err
	}
	return t.admin.remove(ctx, namespaces, "", evilNamespace2)
}
