package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// objectAttacks are attacks by the content and the size of single objects.
// An object may be as large as etcd admits, and hold any text that the schema of its CRD lets through.
func objectAttacks() []attack {
	return []attack{
		{name: "text-in-logs", does: "control characters, line breaks and forged log lines in every text that an object may have", start: oddText, schema: openCRD, quick: true},
		{name: "policy-for-commas", does: "annotations policy-for of 250,000 commas and blanks", start: commas},
		{name: "wrong-types", does: "each field of a policy has each invalid JSON type", start: wrongTypes, schema: openCRD},
		{name: "numbers-odd", does: "ports are numbers that no type can hold, and JSON is deeply nested", start: oddNumbers, schema: openCRD},
		{name: "events-flood", does: "500 invalid policies whose problems change all the time", start: eventFlood},
		{name: "objects-largest", does: "objects of 1.4 MB, in each field that has no smaller bound", start: largestObjects},
		{name: "objects-largest-40", does: "40 policies of 1.4 MB", start: manyLargeObjects},
		{name: "schema-changes", does: "invalid policies exist while an administrator replaces the published CRD by the shipped CRD", start: schemaChanges},
	}
}

// oddTexts are texts that would break a log, a terminal, or a program that reads the log.
// In order: escape sequences of terminals, a forged line of klog, a forged line with carriage returns, characters
// that change the direction of text or end a line in Unicode, a closing quote with forged key-values, formats of
// several languages, and a long text with characters that combine.
var oddTexts = []string{
	"\x1b[2J\x1b]0;owned\x07\x1b[31m",
	"x\nE1128 00:00:00.000000       1 agent.go:1] \"The node is on fire\" pod=\"victim/server\"\n",
	"x\r\nI1128 00:00:00.000000       1 reconciler.go:1] \"Policies enforced\"\r",
	"\u202e\u2066gnp.exe\u2028\u2029\u0000\u0007\ufeff\U000e0001",
	"\" pod=\"victim/server\" err=\"none",
	"%s%n%d{{.}}$(reboot)`reboot`",
	strings.Repeat("\u0301a\u202e", 5_000),
}

// oddText puts each text into every field that the agent may quote in a log line, an Event or a comment of nftables.
// After the attack checkLog reads the agent's log: each line must be of the logger's form, without control
// characters.
func oddText(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	for i, text := range oddTexts {
		selector := object{"matchLabels": object{text: text}, "matchExpressions": []object{{"key": text, "operator": text, "values": []string{text}}}}
		peer := object{"podSelector": selector, "namespaceSelector": selector, "ipBlock": object{"cidr": text, "except": []string{text}}, text: text}
		// The name has the greatest length that the API server admits.
		o := policyObject(strings.Repeat("a", validation.DNS1123SubdomainMaxLength-2)+fmt.Sprint(i), text, object{
			"podSelector": object{}, "policyTypes": []string{text, "Ingress"}, text: text,
			"ingress": []object{{"from": []object{peer, {"ipBlock": object{"cidr": text}}, {"podSelector": selector}}, "ports": []object{{"port": text, "protocol": text}}}},
		})
		if err := t.create(ctx, policies, evilNamespace, o); err != nil {
			return fmt.Errorf("policy %d: %w", i, err)
		}
		// The same spec once more for a network that exists, so that it also reaches pods.
		named := policyObject(fmt.Sprintf("named-%d", i), "net", o["spec"])
		if err := t.create(ctx, policies, evilNamespace, named); err != nil {
			return fmt.Errorf("policy %d: %w", i, err)
		}
		nad := nadObject(fmt.Sprintf("odd-%d", i), `{"type": `+quoted(text)+`}`)
		if err := t.create(ctx, nads, evilNamespace, nad); err != nil {
			return fmt.Errorf("network %d: %w", i, err)
		}
		// A pod of this node and a pod of another node: the agent reads different parts of them.
		for _, node := range []string{nodeName, "node-2"} {
			annotations := map[string]string{
				requestAnnotation: text, statusAnnotation: statusText(object{"name": text, "interface": text, "ips": []string{text}}),
				traceAnnotation: text,
			}
			if err := t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("odd-%d-%s", i, node), node, nil, annotations)); err != nil {
				return fmt.Errorf("pod %d: %w", i, err)
			}
		}
	}
	return nil
}

// quoted returns the text as a JSON string.
func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// commas makes each name in the list of networks empty or invalid.
// A parser that copies the rest of the text at each comma would need the square of its length.
func commas(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	for i, text := range []string{",", ", ", " ", "/,", "\t,\n", "a/b/c,", "net,"} {
		all := strings.Repeat(text, 250_000/len(text))
		if err := t.policy(ctx, fmt.Sprintf("p-%d", i), all, object{"podSelector": object{}, "ingress": []object{{}}}); err != nil {
			return err
		}
	}
	return nil
}

// wrongTypes needs a CRD without a schema. The agent must not rely on the schema.
// The API server fills nothing in and refuses nothing then, so each of the values reaches the agent's decoder. It
// must neither panic nor drop the policies of others: the agent's deaths and the victim's changes show it.
func wrongTypes(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	// Every JSON type in a valid and an invalid form. A shape puts the value in each place of a policy.
	wrong := []string{`null`, `true`, `-1`, `1.5`, `"text"`, `[]`, `[[]]`, `{}`, `{"a": {}}`, `[null]`}
	shapes := []string{
		`%s`, `{"podSelector": %s}`, `{"podSelector": {}, "policyTypes": %s}`, `{"podSelector": {}, "ingress": %s}`,
		`{"podSelector": {"matchLabels": %s}}`, `{"podSelector": {"matchExpressions": %s}}`,
		`{"podSelector": {}, "ingress": [{"from": %s}]}`, `{"podSelector": {}, "ingress": [{"ports": %s}]}`,
		`{"podSelector": {}, "ingress": [{"from": [{"ipBlock": %s}]}]}`,
		`{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": %s, "except": %[1]s}}]}]}`,
		`{"podSelector": {}, "ingress": [{"from": [{"podSelector": %s, "namespaceSelector": %[1]s}]}]}`,
		`{"podSelector": {}, "ingress": [{"ports": [{"port": %s, "endPort": %[1]s, "protocol": %[1]s}]}]}`,
	}
	return t.many(len(wrong)*len(shapes), func(i int) error {
		spec := fmt.Sprintf(shapes[i/len(wrong)], wrong[i%len(wrong)])
		if spec == "null" {
			return nil // the API server drops the field
		}
		return t.policy(ctx, fmt.Sprintf("p-%d", i), "net", rawSpec(spec))
	})
}

// oddNumbers also nests JSON deeply in annotations, which no schema checks.
// A recursive parser could exhaust the stack, and a number that is read as a float could allow another port.
func oddNumbers(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	for i, port := range []string{
		"-1", "0", "65536", "2147483648", "9223372036854775807", "-9223372036854775808", "1e3", "1.5e300", "80.0", `"80"`, `" 80 "`, `"1e2"`, `"0x50"`,
		strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000), strings.Repeat(`{"a":`, 2_000) + "1" + strings.Repeat("}", 2_000),
	} {
		spec := fmt.Sprintf(`{"podSelector": {}, "ingress": [{"ports": [{"port": %s}, {"port": 1, "endPort": %[1]s}]}], "deep": %[1]s}`, port)
		if err := t.policy(ctx, fmt.Sprintf("p-%d", i), "net", rawSpec(spec)); err != nil {
			// The API server has a limit of depth of its own; a refused policy is a remark, not a fault.
			t.note("refused: %.80v", err)
		}
	}
	for i, text := range []string{strings.Repeat("[", 250_000), strings.Repeat(`[{"a":`, 40_000), `[{"name": ` + strings.Repeat("9", 200_000) + `}]`} {
		err := t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("deep-%d", i), nodeName, nil, map[string]string{requestAnnotation: text}))
		if err == nil {
			err = t.create(ctx, pods, evilNamespace, podObject(fmt.Sprintf("deep-status-%d", i), nodeName, nil, map[string]string{statusAnnotation: text}))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eventFlood has new problems to report with each edit. The victim's Events must not wait behind them.
// Each namespace has a budget of Events: eventAtMost bounds the victim's wait, eventsAtMost the load on the API
// server.
func eventFlood(ctx context.Context, t *tenant) error {
	spec := func(i int) json.RawMessage {
		return rawSpec(`{"podSelector": {}, "ingress": [{"ports": [` + repeat(20, ",", func(n int) string { return fmt.Sprintf(`{"port": "Bad_%d_%d"}`, i, n) }) + `]}]}`)
	}
	err := t.many(500, func(i int) error { return t.policy(ctx, fmt.Sprintf("p-%d", i), "net", spec(0)) })
	if err != nil {
		return err
	}
	// Four loops edit different policies, so that edits come faster than a single client could send them.
	for n := range 4 {
		t.loop(func(ctx context.Context, i int) error {
			return t.api.merge(ctx, policies, evilNamespace, fmt.Sprintf("p-%d", (4*i+n)%500), object{"spec": spec(i)})
		})
	}
	return nil
}

// largest is the size of a field that fills an object: etcd refuses more than 1.5 MiB.
const largest = 1_400_000

// largestObjects makes each kind of list or text as large as etcd admits.
// Each object is decoded while its watch waits, and the decoded form may be many times larger: the peak is the bound
// to look at.
func largestObjects(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	fill := func(item string) string { return repeat(largest/(len(item)+1), ",", func(int) string { return item }) }
	text := strings.Repeat("a", largest)
	labels := repeat(30_000, ",", func(i int) string { return fmt.Sprintf(`"k%d":"v"`, i) })
	for i, spec := range []string{
		`{"podSelector": {"matchLabels": {` + labels + `}}}`,
		`{"podSelector": {"matchExpressions": [` + fill(`{"key":"a","operator":"Exists"}`) + `]}}`,
		`{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [` + fill(`"v"`) + `]}]}}`,
		`{"podSelector": {}, "policyTypes": [` + fill(`"x"`) + `]}`,
		`{"podSelector": {}, "egress": [` + fill(`{"to":[{}]}`) + `]}`,
		`{"podSelector": {}, "ingress": [{"from": [` + fill(`{}`) + `]}]}`,
		`{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "` + text + `"}}]}]}`,
		`{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0", "except": [` + fill(`"::1"`) + `]}}]}]}`,
		`{"podSelector": {}, "ingress": [{"ports": [{"port": "` + text + `", "protocol": "x"}]}]}`,
	} {
		// Some of the fields have a bound in the published CRD; then the API server refuses the policy, which is a
		// remark.
		if err := t.policy(ctx, fmt.Sprintf("p-%d", i), "net", rawSpec(spec)); err != nil {
			t.note("policy %d refused: %.80v", i, err)
		}
	}
	for i, config := range []string{`{"type": "` + text + `"}`, `{"plugins": [` + repeat(40_000, ",", func(int) string { return `{"type":"macvlan"}` }) + `]}`, text} {
		if err := t.create(ctx, nads, evilNamespace, nadObject(fmt.Sprintf("large-%d", i), config)); err != nil {
			t.note("network %d refused: %.80v", i, err)
		}
	}
	return nil
}

// manyLargeObjects makes the list of all policies large, which the agent reads when it starts.
// 56 MB of JSON in a list must fit into the memory of the DaemonSet, together with the decoded objects. The restart
// of the agent during the attack is the test.
func manyLargeObjects(ctx context.Context, t *tenant) error {
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	return t.many(40, func(i int) error {
		excepts := repeat(largest/22, ",", func(n int) string { return fmt.Sprintf(`"10.%d.%d.%d/32"`, i+100, 100+n>>8&127, n&255) })
		spec := `{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": [` + excepts + `]}}]}]}`
		return t.policy(ctx, fmt.Sprintf("p-%d", i), "net", rawSpec(spec))
	})
}

// schemaChanges stores policies under a loose schema, then replaces the schema by a stricter schema.
// A stored object stays as it is when the schema changes, though it cannot be written any more. The agent must read
// such policies as before.
func schemaChanges(ctx context.Context, t *tenant) error {
	if err := portBeyondInt32(ctx, t); err != nil {
		return err
	}
	if _, err := t.startPods(ctx, 2, podOptions{}); err != nil {
		return err
	}
	if err := t.policy(ctx, "rules", "net", peerLists(2_000)); err != nil {
		return err
	}
	if err := t.useSchema(ctx, shippedCRD); err != nil {
		return err
	}
	t.atEnd(func() {
		if err := t.useSchema(context.WithoutCancel(ctx), publishedCRD); err != nil {
			t.fault("%v", err)
		}
	})
	return nil
}
