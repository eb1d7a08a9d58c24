package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// issueAttacks are the attacks that hurt earlier versions of the agent.
// They stay in the list so that the faults never come back.
func issueAttacks() []attack {
	return []attack{
		{name: "port-int32", does: "a policy with a port beyond 32 bits", start: portBeyondInt32, quick: true},
		{name: "end-port-int64", does: "a policy with an end of a port range beyond 32 bits", start: hugeEndPort, schema: openCRD},
		{name: "rules-40000", does: "a policy of 40,000 rules, with a rule inserted in front again and again", start: manyRules, quick: true},
		{name: "peer-lists-20000", does: "a policy selects two pods and has 20,000 rules, each with its own list of peers", start: manyPeerLists, quick: true},
		{name: "networks-x-peers", does: "a policy for 2,000 networks with 2,000 peers", start: networksTimesPeers},
		{name: "networks-x-rules", does: "a policy for 35,000 networks with 2,000 rules, updated again and again", start: networksTimesRules},
		{name: "ports-100000", does: "a policy with 100,000 invalid ports", start: invalidPorts, quick: true},
		{name: "trace-annotations", does: "the trace annotations of pods with traffic change all the time", start: traceAnnotations},
		{name: "status-empty", does: "a pod starts, and its creator has written an empty network status", start: emptyStatus},
		{name: "never-scheduled", does: "a pod without a node claims the stranger's address and a label that the victim allows", start: neverScheduled, quick: true},
		{name: "status-hangs", does: "the CRI status of 40 sandboxes hangs", start: hangingStatus},
		{name: "chains-100000", does: "root in a pod creates 100,000 chains, and changes tables all the time", start: manyChains, quick: true},
	}
}

// rulesPath is the path of the policy "p" of the attacker.
func rulesPath() string { return pathOf(policies, evilNamespace, "p") }

// portBeyondInt32 writes a number that the Go type of a port cannot hold. A client that decodes whole lists fails for every
// policy of the cluster.
// The bounds on changes, starts and Events show whether the victim's policies still reach the agent.
func portBeyondInt32(ctx context.Context, t *tenant) error {
	return t.policy(ctx, "p", "net", object{"podSelector": object{}, "ingress": []object{{"ports": []object{{"port": 2147483648}}}}})
}

// hugeEndPort does the same with the other number of a policy.
// The CRD is open, as a schema refuses the number before the agent sees it.
func hugeEndPort(ctx context.Context, t *tenant) error {
	spec := object{"podSelector": object{}, "ingress": []object{{"ports": []object{{"port": 80, "endPort": 99999999999}}}}}
	return t.policy(ctx, "p", "net", spec)
}

// manyRules inserts rules in front: a comparison of the old with the new rules by a table costs their product.
// With 40,000 rules in both versions, the victim's changes would wait behind such a comparison: ownAtMost. The limit
// policy-rules (1,000) keeps rules beyond it out of the tables.
func manyRules(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	spec := `{"podSelector": {}, "ingress": [` + repeat(40_000, ",", func(int) string { return "{}" }) + `]}`
	if err := t.policy(ctx, "p", "net", rawSpec(spec)); err != nil {
		return err
	}
	t.loop(func(ctx context.Context, i int) error {
		rule := fmt.Sprintf(`{"ports": [{"port": %d}]}`, i%65535+1)
		_, err := t.api.patch(ctx, jsonPatch, rulesPath(), `[{"op": "add", "path": "/spec/ingress/0", "value": `+rule+`}]`)
		return err
	})
	return nil
}

// block returns the i-th of many blocks with a single address. No two blocks are adjacent.
// Blocks start at 10.100.0.0 and are every other address, so a set keeps n ranges for n blocks.
func block(i int) string { return fmt.Sprintf("10.%d.%d.%d/32", 100+i>>15, i>>7&255, i<<1&255) }

// peerLists is a policy spec with n rules. Each rule has a list of peers of its own, so each needs a set.
// The limit policy-rules is 1,000 rules: n above it tests how the agent cuts the policy off, n below it the cost of
// many sets.
func peerLists(n int) any {
	return rawSpec(`{"podSelector": {}, "ingress": [` + repeat(n, ",", func(i int) string {
		return fmt.Sprintf(`{"from": [{"ipBlock": {"cidr": %q}}]}`, block(i))
	}) + `]}`)
}

// manyPeerLists makes the kernel search a list of thousands of sets for each set that the agent adds.
// Without a limit, the worker that adds them would be busy for a time that grows with the square of the sets.
func manyPeerLists(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	return t.policy(ctx, "p", "net", peerLists(20_000))
}

// networkNames is an annotation with n networks; the pods of the attacker are on the first.
func networkNames(n int) string {
	return "net," + repeat(n-1, ",", func(i int) string { return fmt.Sprintf("n%d", i) })
}

// networksTimesPeers makes each peer a peer on each network.
// 2,000 networks with 2,000 peers each could fill the memory of the agent, so its peak and the kernel's kills are the
// bounds to look at. The limit policy-networks is 100.
func networksTimesPeers(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	peers := repeat(2_000, ",", func(i int) string { return fmt.Sprintf(`{"podSelector": {"matchLabels": {"a": "%d"}}}`, i) })
	return t.policy(ctx, "p", networkNames(2_000), rawSpec(`{"podSelector": {}, "ingress": [{"from": [`+peers+`]}]}`))
}

// networksTimesRules repeats the long list of networks in the identity of each rule.
// 35,000 names are a string of 200 kB; with a copy in each of 2,000 rules, every edit would cost hundreds of
// megabytes.
func networksTimesRules(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	rules := repeat(2_000, ",", func(i int) string {
		return fmt.Sprintf(`{"from": [{"podSelector": {"matchLabels": {"a": "%d"}}}]}`, i)
	})
	if err := t.policy(ctx, "p", networkNames(35_000), rawSpec(`{"podSelector": {}, "ingress": [`+rules+`]}`)); err != nil {
		return err
	}
	t.loop(func(ctx context.Context, i int) error {
		return t.api.merge(ctx, policies, evilNamespace, "p", object{"metadata": object{"annotations": object{"round": fmt.Sprint(i)}}})
	})
	return nil
}

// invalidPorts has a problem to report in each port.
// A log line or an Event for each of 100,000 ports would fill the node's disk or etcd: logAtMost, eventsAtMost.
func invalidPorts(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	ports := repeat(100_000, ",", func(int) string { return `{"port":0}` })
	return t.policy(ctx, "p", "net", rawSpec(`{"podSelector": {}, "ingress": [{"ports": [`+ports+`]}]}`))
}

// traceAnnotations asks for a new trace with each change, of packets that never end.
// A trace reads every marked packet from the kernel. Traces must stay within their budget, so that the agent's cores
// and its log are free for the victim.
func traceAnnotations(ctx context.Context, t *tenant) error {
	list, err := t.startPods(ctx, 8, podOptions{})
	if err != nil {
		return err
	}
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}}); err != nil {
		return err
	}
	for i, p := range list {
		for range 4 {
			if err := t.flood(p, list[(i+1)%len(list)].addr); err != nil {
				return err
			}
		}
		t.loop(func(ctx context.Context, round int) error {
			return t.api.merge(ctx, pods, evilNamespace, p.pod.Name, object{"metadata": object{"annotations": object{
				traceAnnotation: fmt.Sprintf("--duration %ds --limit 50", 60+round%100),
			}}})
		})
	}
	return nil
}

// emptyStatus starts a pod whose creator wants it to start without rules.
// An agent that trusts the annotation would find no interface to isolate, and the pod would start open.
func emptyStatus(ctx context.Context, t *tenant) error {
	return startUnruly(ctx, t, podOptions{annotations: map[string]string{statusAnnotation: "[]"}})
}

// startUnruly starts a pod, and claims that no packet reaches it, although Multus has reported nothing yet.
// The promise is about the tenant's own policy: the pod must be isolated from its first packet on, whatever the
// annotation says.
func startUnruly(ctx context.Context, t *tenant, o podOptions) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": matchLabel("app", "unruly")}); err != nil {
		return err
	}
	other, err := t.startPod(ctx, "other", podOptions{})
	if err != nil {
		return err
	}
	// unreported: no kubelet and no Multus overwrites the annotation.
	o.labels, o.unreported = map[string]string{"app": "unruly"}, true
	p, err := t.startPod(ctx, "unruly", o)
	if err != nil {
		return err
	}
	if err := p.isolates(ctx, other); err != nil {
		t.fault("the pod is open when it starts: %v", err)
	}
	// Once more at the end of the attack, when the agent had time to believe the annotation.
	t.claim("the pod stays isolated", func(ctx context.Context) error { return p.isolates(ctx, other) })
	return nil
}

// neverScheduled needs no node, so that no kubelet and no Multus ever corrects the status.
// If the agent made the address a member of the group, the stranger's packets would pass: leaksAtMost.
func neverScheduled(ctx context.Context, t *tenant) error {
	return t.create(ctx, pods, evilNamespace, podObject("spoof", "", map[string]string{"role": metricsLabel, "app": "friend"},
		map[string]string{statusAnnotation: networkStatus(victimNetwork, addresses["stranger"])}))
}

// hangingStatus has a pod of the victim start without NRI, so that the agent must ask for the status of its sandbox.
// A runtime that answers slowly about the tenant's sandboxes must not delay the answer about the victim's:
// foundAtMost.
func hangingStatus(ctx context.Context, t *tenant) error {
	err := t.many(40, func(i int) error {
		name := fmt.Sprintf("pod-%d", i)
		uid, err := t.api.create(ctx, pods, evilNamespace, podObject(name, nodeName, nil, map[string]string{requestAnnotation: "net"}))
		if err != nil {
			return err
		}
		// hang comes before the sandbox exists, so the agent never gets a status of it.
		t.runtime.hang(uid)
		_, err = t.runPod(ctx, name, uid, podOptions{namespace: evilNamespace, quiet: true})
		return err
	})
	if err != nil {
		return err
	}
	t.claim("a pod of the victim that starts without NRI", func(ctx context.Context) error {
		took, err := t.victim.startWithoutNRI(ctx)
		if err == nil && took > foundAtMost {
			err = errors.New("it was isolated after " + took.Round(time.Millisecond).String())
		}
		t.note("a pod without NRI was isolated after %s", round(took))
		return err
	})
	return nil
}

// manyChains changes the ruleset generation of the namespace all the time, so the agent must look at its table again and again.
// The more the namespace holds, the more each look can cost; the victim's pods must not wait for it: ownAtMost.
func manyChains(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}}); err != nil {
		return err
	}
	p, err := t.startPod(ctx, "root", podOptions{})
	if err != nil {
		return err
	}
	chains := repeat(100_000, "\n", func(i int) string { return fmt.Sprintf("add chain inet t c%d", i) })
	if err := p.nft("add table inet t\n" + chains + "\n"); err != nil {
		return err
	}
	t.loop(func(context.Context, int) error { return p.nft("add chain inet t more\ndelete chain inet t more\n") })
	return nil
}
