package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// enforcementCluster has, beside the server, a pod that is on another network, a pod whose network has an unsupported plugin, a pod on
// ipvlan in mode l3s, a pod with an unreadable status, and a pod without a sandbox.
const enforcementCluster = node.Cluster + `
---
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: ns, name: odd}, spec: {config: '{"type": "odd"}'}}
---
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: ns, name: l3s}, spec: {config: '{"type": "ipvlan", "mode": "l3s"}'}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: elsewhere, uid: elsewhere, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/other", "interface": "net1"}]'}}, spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: odd, uid: odd, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/odd", "interface": "net1"}]'}}, spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: stranger, uid: stranger, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/l3s", "interface": "net1"}]'}}, spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: unreadable, uid: unreadable, annotations: {
  k8s.v1.cni.cncf.io/network-status: 'x'}}, spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: without, uid: without, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1"}]'}}, spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: other, name: foreign, uid: foreign}, spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: all, uid: all, resourceVersion: "7",
  annotations: {k8s.v1.cni.cncf.io/policy-for: "net,odd,l3s"}}, spec: {podSelector: {}, ingress: [{ports: [{port: PORT}]}]}}
`

// TestEnforcement asks a real agent which policies are enforced.
func TestEnforcement(t *testing.T) {
	r := newRig(t)
	documents := strings.ReplaceAll(enforcementCluster, "PORT", "80")
	r.Load(documents + node.Policy)
	r.config.HealthAddress = cluster.LoopbackAddress()
	r.StartRuntime("server", "stranger")
	begin := time.Now()
	stop := r.start()
	r.IsEnforced(true)
	ask := func(query string) []map[string]any { return askEnforcement(t, r.config.HealthAddress, query) }
	// states returns "STATE REASON" of each pod for the policy all.
	states := func() map[string]string {
		out := map[string]string{}
		for _, value := range ask("?namespace=ns&policy=all") {
			if value["name"] == nil {
				continue
			}
			text := "not selected"
			if list := value["policies"].([]any); len(list) > 0 {
				p := list[0].(map[string]any)
				text = fmt.Sprint(p["state"])
				if reasons, ok := p["reasons"].([]any); ok {
					text += fmt.Sprint(" ", reasons[0].(map[string]any)["reason"])
				}
			}
			out[fmt.Sprint(value["name"])] = text
		}
		return out
	}
	becomes := func(name string, want map[string]string) {
		t.Helper()
		var diff string
		await.That(t, name, func() bool { diff = cmp.Diff(want, states()); return diff == "" })
		if diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	want := map[string]string{
		"server": "Enforced", "elsewhere": "NoEffect no_network", "odd": "NotEnforced unsupported_plugin", "stranger": "NotEnforced not_enforceable",
		"unreadable": "NotEnforced unreadable_status", "without": "NotEnforced no_sandbox",
	}
	becomes("each pod has its reason", want)

	// A policy keeps its time while other policies and members change, and gets another time by an edit of its rules.
	since := func(policy string) time.Time {
		t.Helper()
		for _, value := range ask("?namespace=ns&policy=" + policy) {
			if value["name"] == "server" {
				text, acknowledged := value["policies"].([]any)[0].(map[string]any)["since"].(string)
				if !acknowledged {
					return time.Time{}
				}
				at, err := time.Parse(time.RFC3339Nano, text)
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
		}
		t.Fatal("the server is missing")
		return time.Time{}
	}
	first, firstOther := since("all"), since("p")
	if first.Before(begin) || first.After(time.Now()) {
		t.Errorf("since %s, the agent started at %s", first, begin)
	}
	r.Load(strings.ReplaceAll(enforcementCluster, "PORT", "81") + node.Policy)
	await.That(t, "the edit has another time", func() bool { return states()["server"] == "Enforced" && since("all").After(first) })
	if !since("p").Equal(firstOther) {
		t.Error("the time of the other policy changed")
	}
	second := since("all")
	r.Load(strings.ReplaceAll(strings.ReplaceAll(enforcementCluster, "PORT", "81"), "10.9.0.2", "10.9.0.4") + node.Policy)
	await.That(t, "the peer has another address", func() bool { return !r.Reaches("friend", 100*time.Millisecond) })
	if !since("all").Equal(second) || !since("p").Equal(firstOther) {
		t.Error("a change of a peer changed the times")
	}

	// The whole answer, and the answer about a namespace.
	all := ask("")
	if header, end := all[0], all[len(all)-1]; header["node"] != node.Name || header["version"] != "test" || end["pods"] != float64(len(want)+1) {
		t.Errorf("header %v, end %v", header, end)
	}
	if code, _ := node.Get(t, "http://"+r.config.HealthAddress+enforcement.Path+"?policy=all"); code != http.StatusBadRequest {
		t.Errorf("a policy without a namespace: status %d", code)
	}
	r.Load(strings.ReplaceAll(enforcementCluster, "{namespace: ns, name: all", "{namespace: other, name: all") + node.Policy)
	await.That(t, "the policy is of another namespace", func() bool { return states()["server"] == "not selected" })
	stop()
}

// askEnforcement returns the values of an answer of the agent.
func askEnforcement(t *testing.T, address, query string) (values []map[string]any) {
	t.Helper()
	code, body := node.Get(t, "http://"+address+enforcement.Path+query)
	if code != http.StatusOK {
		return nil
	}
	for in := json.NewDecoder(strings.NewReader(body)); in.More(); {
		value := map[string]any{}
		if err := in.Decode(&value); err != nil {
			t.Fatal(err)
		}
		values = append(values, value)
	}
	return values
}

// TestEnforcementFails asks an agent about a pod whose network namespace cannot be opened, and then is there.
func TestEnforcementFails(t *testing.T) {
	r := newRig(t)
	r.Load(node.Cluster + node.Policy)
	r.config.HealthAddress = cluster.LoopbackAddress()
	// A namespace of another kind, which cannot be opened as a network namespace, and is gone with its process.
	process := exec.Command("sleep", "60")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	uts := fmt.Sprintf("/proc/%d/ns/uts", process.Process.Pid)
	r.Runtime.Set(cluster.Sandbox{ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(uts)})
	if err := r.Runtime.Start(); err != nil {
		t.Fatal(err)
	}
	stop := r.start()
	says := func(parts ...string) func() bool {
		return func() bool {
			for _, value := range askEnforcement(t, r.config.HealthAddress, "") {
				data, err := json.Marshal(value["policies"])
				if err != nil {
					t.Fatal(err)
				}
				lacks := func(part string) bool { return !strings.Contains(string(data), part) }
				if value["name"] == "server" && !slices.ContainsFunc(parts, lacks) {
					return true
				}
			}
			return false
		}
	}
	await.That(t, "a namespace of another kind", says(`"reason":"`+enforcement.ReasonKernel, `"state":"NotEnforced"`, "invalid argument"))
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	process.Wait() //nolint:errcheck // it was killed
	await.That(t, "a namespace that is gone", says(`"reason":"`+enforcement.ReasonGone, `"state":"NotEnforced"`))
	r.SetSandboxes("server")
	await.That(t, "enforced", says(`[{"name":"p","since":"`, `"state":"Enforced","uid":"p"`))
	r.Load(inMode(node.Cluster+node.Policy, "audit"))
	await.That(t, "in audit mode", says(`"reason":"audit_mode"`, `"state":"NoEffect","uid":"p"`))
	stop()
}

// TestWaitsSince follows a pod through the queue.
func TestWaitsSince(t *testing.T) {
	p := newProgress(newMetrics("test"))
	pod := cache.PodID{UID: "x"}
	if !p.waitsSince(pod).IsZero() {
		t.Error("an unknown pod waits")
	}
	p.Queued([]cache.PodID{pod}, time.Now())
	if p.waitsSince(pod).IsZero() {
		t.Error("a queued pod does not wait")
	}
	p.Started(pod)
	if p.waitsSince(pod).IsZero() {
		t.Error("a pod that is worked on does not wait")
	}
	p.Finished(pod, nil)
	if !p.waitsSince(pod).IsZero() {
		t.Error("a finished pod waits")
	}
}
