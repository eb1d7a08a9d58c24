package informers_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// recorder is a sink that remembers what it holds, and gives the problems that it is told to.
type recorder struct {
	mu       sync.Mutex
	pods     map[cache.Key]*corev1.Pod
	held     map[string]string // kind and key, to what tells versions apart
	problems map[string][]cache.Problem
	sandbox  map[types.UID]cache.Sandbox
	notified int
}

func newRecorder() *recorder {
	return &recorder{
		pods: map[cache.Key]*corev1.Pod{}, held: map[string]string{}, problems: map[string][]cache.Problem{},
		sandbox: map[types.UID]cache.Sandbox{},
	}
}

func (r *recorder) put(kind string, key cache.Key, value string) []cache.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := kind + " " + key.String()
	r.held[id] = value
	return r.problems[id]
}

func (r *recorder) drop(kind string, key cache.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, kind+" "+key.String())
	delete(r.pods, key)
}

func (r *recorder) UpsertPod(p *corev1.Pod) []cache.Problem {
	key := cache.Key{Namespace: p.Namespace, Name: p.Name}
	r.mu.Lock()
	r.pods[key] = p
	r.mu.Unlock()
	return r.put("pod", key, p.Labels["l"])
}

func (r *recorder) UpsertNamespace(ns *corev1.Namespace) {
	r.put("ns", cache.Key{Name: ns.Name}, ns.Labels["l"])
}

func (r *recorder) UpsertNAD(n *netv1.NetworkAttachmentDefinition) []cache.Problem {
	return r.put("nad", cache.Key{Namespace: n.Namespace, Name: n.Name}, n.Spec.Config)
}

func (r *recorder) UpsertPolicy(p *mnpv1.MultiNetworkPolicy) []cache.Problem {
	return r.put("policy", cache.Key{Namespace: p.Namespace, Name: p.Name},
		p.Annotations["k8s.v1.cni.cncf.io/policy-for"])
}

func (r *recorder) DeletePod(k cache.Key)     { r.drop("pod", k) }
func (r *recorder) DeleteNamespace(n string)  { r.drop("ns", cache.Key{Name: n}) }
func (r *recorder) DeleteNAD(k cache.Key)     { r.drop("nad", k) }
func (r *recorder) DeletePolicy(k cache.Key)  { r.drop("policy", k) }
func (r *recorder) DeleteSandbox(u types.UID) { r.mu.Lock(); defer r.mu.Unlock(); delete(r.sandbox, u) }
func (r *recorder) Notify()                   { r.mu.Lock(); defer r.mu.Unlock(); r.notified++ }
func (r *recorder) setProblems(id string, ps ...cache.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems[id] = ps
}

func (r *recorder) SetSandbox(u types.UID, s cache.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandbox[u] = s
}

// state is all that is held, as lines.
func (r *recorder) state() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for id, value := range r.held {
		lines = append(lines, id+" = "+value)
	}
	for uid, s := range r.sandbox {
		lines = append(lines, fmt.Sprintf("sandbox %s = %s", uid, s.ID))
	}
	slices.Sort(lines)
	return lines
}

func (r *recorder) pod(key string) *corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	ns, name, _ := strings.Cut(key, "/")
	return r.pods[cache.Key{Namespace: ns, Name: name}]
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// becomes waits for a state.
func (r *recorder) becomes(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	for deadline := time.Now().Add(30 * time.Second); !slices.Equal(r.state(), want); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("state is\n%s\nwant\n%s", strings.Join(r.state(), "\n"), strings.Join(want, "\n"))
		}
	}
}

// logLines is a log that can be asked.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) logger() logr.Logger {
	return funcr.New(func(prefix, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, prefix+" "+args)
	}, funcr.Options{})
}

func (l *logLines) with(part string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

// manifests are the documents of one file.
func manifests(t *testing.T, documents ...string) informers.Manifests {
	t.Helper()
	m, err := informers.ReadFS(fstest.MapFS{"world.yaml": {Data: []byte(strings.Join(documents, "\n---\n"))}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func load(t *testing.T, f *informers.Files, documents ...string) {
	t.Helper()
	if err := f.Load(manifests(t, documents...)); err != nil {
		t.Fatal(err)
	}
}

func podDoc(name, node, label string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: %s, uid: uid-%s, labels: {l: %q}},
  spec: {nodeName: %s}}`, name, name, label, node)
}

func nsDoc(label string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: ns, labels: {l: %q}}}`, label)
}

func nadDoc(config string) string {
	return fmt.Sprintf(`{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition,
  metadata: {namespace: ns, name: net}, spec: {config: %q}}`, config)
}

func policyDoc(name, networks string) string {
	return fmt.Sprintf(`{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: %s,
  uid: uid-%s, annotations: {k8s.v1.cni.cncf.io/policy-for: %q}}, spec: {podSelector: {}}}`, name, name, networks)
}
