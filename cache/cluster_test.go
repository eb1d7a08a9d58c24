package cache

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

const testNode = "node-1"

func testOptions() Options {
	return Options{Node: testNode, NetworkPlugins: []string{"macvlan", "bridge"}}
}

func keyOf(s string) Key {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		return Key{Namespace: "default", Name: s}
	}
	return Key{Namespace: ns, Name: name}
}

func meta(key, labels string) metav1.ObjectMeta {
	k := keyOf(key)
	m := metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name, UID: types.UID("uid-" + key)}
	for _, l := range strings.Fields(labels) {
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		k, v, _ := strings.Cut(l, "=")
		m.Labels[k] = v
	}
	return m
}

// newPod makes a local pod. Each attachment is "interface network address...".
func newPod(key, labels string, attachments ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta(key, labels)}
	p.Spec.NodeName = testNode
	p.Status.Phase = corev1.PodRunning
	setStatus(p, attachments...)
	return p
}

// newPeer makes a pod of another node.
func newPeer(key, labels string, attachments ...string) *corev1.Pod {
	p := newPod(key, labels, attachments...)
	p.Spec.NodeName = "node-2"
	return p
}

func setStatus(p *corev1.Pod, attachments ...string) {
	if len(attachments) == 0 {
		return
	}
	var list []map[string]any
	for _, a := range attachments {
		f := strings.Fields(a)
		list = append(list, map[string]any{"interface": f[0], "name": f[1], "ips": f[2:], "mac": "02:00:00:00:00:01"})
	}
	raw, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	p.Annotations = map[string]string{statusAnnotation: string(raw)}
}

// setNetworks makes a pod one that asks for networks and has no network status yet.
func setNetworks(p *corev1.Pod, networks string) *corev1.Pod {
	p.Annotations = map[string]string{networksAnnotation: networks}
	return p
}

// withPorts gives a pod a container with ports, each "name=number/protocol".
func withPorts(p *corev1.Pod, ports ...string) *corev1.Pod {
	var c corev1.Container
	for _, s := range ports {
		var port corev1.ContainerPort
		name, rest, _ := strings.Cut(s, "=")
		if _, err := fmt.Sscanf(strings.ReplaceAll(rest, "/", " "), "%d %s", &port.ContainerPort, &port.Protocol); err != nil {
			panic(err)
		}
		port.Name = name
		c.Ports = append(c.Ports, port)
	}
	p.Spec.Containers = append(p.Spec.Containers, c)
	return p
}

func newNamespace(name, labels string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: meta("/"+name, labels)}
}

func newNAD(key, pluginType string) *netv1.NetworkAttachmentDefinition {
	nad := &netv1.NetworkAttachmentDefinition{ObjectMeta: meta(key, "")}
	nad.Spec.Config = `{"cniVersion": "0.3.1", "type": "` + pluginType + `"}`
	return nad
}

// newPolicy makes a policy for the networks from the YAML of its spec.
func newPolicy(key, networks, spec string) *mnpv1.MultiNetworkPolicy {
	p := &mnpv1.MultiNetworkPolicy{ObjectMeta: meta(key, "")}
	p.Annotations = map[string]string{policyForAnnotation: networks}
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(spec, "\t", "  ")), &p.Spec); err != nil {
		panic(fmt.Sprintf("%v in %s", err, spec))
	}
	return p
}

// upsert gives the cache an object of any kind.
func upsert(c *Cache, o metav1.Object) []Problem {
	switch o := o.(type) {
	case *corev1.Pod:
		return c.UpsertPod(o)
	case *corev1.Namespace:
		c.UpsertNamespace(o)
	case *netv1.NetworkAttachmentDefinition:
		return c.UpsertNAD(o)
	case *mnpv1.MultiNetworkPolicy:
		return c.UpsertPolicy(o)
	default:
		panic(fmt.Sprintf("%T", o))
	}
	return nil
}

// remove takes an object of any kind from the cache.
func remove(c *Cache, o metav1.Object) {
	key := Key{Namespace: o.GetNamespace(), Name: o.GetName()}
	switch o.(type) {
	case *corev1.Pod:
		c.DeletePod(key)
	case *corev1.Namespace:
		c.DeleteNamespace(key.Name)
	case *netv1.NetworkAttachmentDefinition:
		c.DeleteNAD(key)
	case *mnpv1.MultiNetworkPolicy:
		c.DeletePolicy(key)
	default:
		panic(fmt.Sprintf("%T", o))
	}
}

// newCluster returns a cache with the objects, which must be free of problems, and no dirty pods.
func newCluster(t testing.TB, objects ...metav1.Object) *Cache {
	t.Helper()
	c := New(testOptions())
	for _, o := range objects {
		if ps := upsert(c, o); len(ps) > 0 {
			t.Fatalf("%s/%s: %v", o.GetNamespace(), o.GetName(), ps)
		}
	}
	c.TakeDirty()
	return c
}

// render is all of a ruleset as text.
func render(t testing.TB, rs engine.Ruleset) string {
	t.Helper()
	var b strings.Builder
	if err := engine.Render(&b, rs); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func renderPod(t testing.TB, c *Cache, key string) string {
	t.Helper()
	return render(t, c.Ruleset(keyOf(key)))
}

// wantDirty checks which pods TakeDirty returns.
func wantDirty(t testing.TB, c *Cache, what string, keys ...string) {
	t.Helper()
	var got []string
	for _, k := range c.TakeDirty() {
		got = append(got, k.String())
	}
	for i, k := range keys {
		keys[i] = keyOf(k).String()
	}
	if diff := cmp.Diff(keys, got); diff != "" {
		t.Errorf("dirty after %s (-want +got):\n%s", what, diff)
	}
}
