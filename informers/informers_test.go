package informers_test

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/testcluster"
)

// started are informers on a source, stopped with the test.
type started struct {
	sink   *recorder
	log    *logLines
	events *warnings
	in     *informers.Informers
	local  chan types.UID
}

// warnings is an EventSink that remembers.
type warnings struct{ told chan string }

func (w *warnings) Warn(about informers.Subject, reason, message string) {
	w.told <- about.Kind + " " + about.String() + " " + reason + ": " + message
}

func (w *warnings) take() []string {
	var all []string
	for len(w.told) > 0 {
		all = append(all, <-w.told)
	}
	return all
}

func start(t *testing.T, source informers.Source) *started {
	t.Helper()
	s := &started{
		sink: newRecorder(), log: &logLines{}, events: &warnings{make(chan string, 1000)}, local: make(chan types.UID, 1000),
	}
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), s.log.logger()))
	in, err := informers.New(ctx, informers.Config{
		Source: source, Sink: s.sink, Node: "here", Notify: s.sink.Notify,
		Reporter: informers.NewReporter(s.events), LocalPod: func(uid types.UID) { s.local <- uid },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	in.Start(ctx)
	t.Cleanup(func() { cancel(); in.Wait() })
	return s
}

func (s *started) synced(t *testing.T) {
	t.Helper()
	eventually(t, "in sync", s.in.HasSynced)
}

// The first lists are in the sink when HasSynced says so, and every change comes after, whether the source is files or
// an API server, one that streams lists or one that does not.
func TestEverySource(t *testing.T) {
	for name, source := range map[string]func(*testing.T, *informers.Files) informers.Source{
		"files": func(_ *testing.T, f *informers.Files) informers.Source { return f.Source() },
		"API server that streams lists": func(t *testing.T, f *informers.Files) informers.Source {
			source, _ := apiSource(t, f, true)
			return source
		},
		"older API server": func(t *testing.T, f *informers.Files) informers.Source {
			source, _ := apiSource(t, f, false)
			return source
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := informers.NewFiles()
			load(t, f, nsDoc("1"), nadDoc("a"), policyDoc("p", "net"), podDoc("a", "here", "1"), podDoc("b", "there", "1"))
			s := start(t, source(t, f))
			s.synced(t)
			s.sink.becomes(t, "ns /ns = 1", "nad ns/net = a", "policy ns/p = net", "pod ns/a = 1", "pod ns/b = 1")

			load(t, f, nsDoc("2"), nadDoc("b"), policyDoc("q", "other/net"), podDoc("a", "here", "2"))
			s.sink.becomes(t, "ns /ns = 2", "nad ns/net = b", "policy ns/q = other/net", "pod ns/a = 2")

			load(t, f)
			s.sink.becomes(t)
			if found := s.log.with("fail"); len(found) > 0 {
				t.Errorf("nothing failed, but the log says %q", found)
			}
			for len(s.local) > 0 {
				if uid := <-s.local; uid != "uid-a" {
					t.Errorf("told of %s as of a local pod", uid)
				}
			}
		})
	}
}

func apiSource(t *testing.T, f *informers.Files, streams bool) (informers.Source, *testcluster.API) {
	t.Helper()
	api := newAPI(t, f, streams)
	source, err := informers.FromClients(api.Config())
	if err != nil {
		t.Fatal(err)
	}
	return source, api
}

func newAPI(t *testing.T, f *informers.Files, streams bool) *testcluster.API {
	t.Helper()
	api, err := testcluster.NewAPI(f, streams)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	return api
}

// An API server that is away at the start, or goes away later, is tried until it is back; meanwhile everything stays as
// it was, and what was deleted meanwhile is noticed.
func TestOutages(t *testing.T) {
	f := informers.NewFiles()
	load(t, f, policyDoc("p", "net"), podDoc("a", "here", "1"), podDoc("b", "here", "1"))
	source, api := apiSource(t, f, true)
	api.Stop()
	s := start(t, source)
	eventually(t, "the outage is logged", func() bool { return len(s.log.with("failed")) >= 4 })
	if s.in.HasSynced() {
		t.Error("in sync with an API server that is away")
	}
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	s.synced(t)
	want := []string{"ns /ns = ", "policy ns/p = net", "pod ns/a = 1", "pod ns/b = 1"}
	s.sink.becomes(t, want...)
	eventually(t, "the end of the outage is logged", func() bool { return len(s.log.with("works again")) == 4 })

	api.Stop()
	eventually(t, "the second outage is logged", func() bool { return len(s.log.with("failed")) == 8 })
	load(t, f, policyDoc("p", "net"), podDoc("a", "here", "2"))
	s.sink.becomes(t, want...)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	s.sink.becomes(t, "ns /ns = ", "policy ns/p = net", "pod ns/a = 2")
}

func TestProblems(t *testing.T) {
	f := informers.NewFiles()
	s := start(t, f.Source())
	s.synced(t)
	bad := cache.Problem{Field: "spec.ingress[0].from[0].ipBlock.cidr", Message: "no CIDR"}
	s.sink.setProblems("policy ns/p", bad)
	s.sink.setProblems("pod ns/a", cache.Problem{Field: "metadata.annotations[x]", Message: "no JSON"})
	s.sink.setProblems("pod ns/b", cache.Problem{Field: "metadata.annotations[x]", Message: "no JSON"})
	step := func(what string, documents []string, state []string, want ...string) {
		t.Helper()
		load(t, f, documents...)
		s.sink.becomes(t, state...)
		var got []string
		eventually(t, what, func() bool { got = append(got, s.events.take()...); return len(got) >= len(want) })
		if len(got) != len(want) {
			t.Fatalf("%s: told %q, want %q", what, got, want)
		}
		for _, w := range want {
			if !contains(got, w) {
				t.Errorf("%s: told %q, not %q", what, got, w)
			}
		}
	}
	const warning = "MultiNetworkPolicy ns/p InvalidMultiNetworkPolicy: spec.ingress[0].from[0].ipBlock.cidr: no CIDR"
	step("new problems, those of pods only when local", []string{policyDoc("p", "1"), podDoc("a", "here", "1"),
		podDoc("b", "there", "1")}, []string{"ns /ns = ", "policy ns/p = 1", "pod ns/a = 1", "pod ns/b = 1"},
		warning, "Pod ns/a InvalidNetworkStatus: metadata.annotations[x]: no JSON")
	step("the same problems after a change", []string{policyDoc("p", "2")}, []string{"ns /ns = ", "policy ns/p = 2"})
	s.sink.setProblems("policy ns/p")
	step("no more problems", []string{policyDoc("p", "3")}, []string{"ns /ns = ", "policy ns/p = 3"})
	eventually(t, "the end of the problems is logged", func() bool { return len(s.log.with("problems are gone")) == 1 })
	s.sink.setProblems("policy ns/p", bad)
	step("problems again", []string{policyDoc("p", "4")}, []string{"ns /ns = ", "policy ns/p = 4"}, warning)
	step("gone", nil, nil)
	step("another object of the name", []string{policyDoc("p", "5")}, []string{"ns /ns = ", "policy ns/p = 5"}, warning)
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// What informers keep of a pod is enough for the cache to come to the same rules, and no more.
func TestTrimmedPod(t *testing.T) {
	f := informers.NewFiles()
	load(t, f, `
apiVersion: v1
kind: Pod
metadata:
  namespace: ns
  name: a
  uid: u
  labels: {app: web}
  annotations:
    k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.0.0.1"]}]'
    k8s.v1.cni.cncf.io/networks: net
    kubectl.kubernetes.io/last-applied-configuration: a long text
  managedFields: [{manager: kubectl}]
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: x}]
spec:
  nodeName: here
  serviceAccountName: s
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
    - {name: once, image: i}
    - {name: sidecar, image: i, restartPolicy: Always, ports: [{name: metrics, containerPort: 9090}]}
  containers:
    - name: c
      image: i
      env: [{name: A, value: b}]
      ports: [{name: http, containerPort: 80, hostPort: 8080}, {containerPort: 81}]
    - {name: d, image: i}
status:
  phase: Running
  podIP: 10.244.0.1
  containerStatuses: [{name: c, ready: true}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: ns, name: far, annotations: {k8s.v1.cni.cncf.io/networks: net}}
spec: {nodeName: elsewhere}
`)
	s := start(t, f.Source())
	s.synced(t)
	got := s.sink.pod("ns/a")
	always := corev1.ContainerRestartPolicyAlways
	want := &corev1.Pod{
		Spec: corev1.PodSpec{
			NodeName: "here",
			InitContainers: []corev1.Container{{Name: "sidecar", RestartPolicy: &always, Ports: []corev1.ContainerPort{
				{Name: "metrics", ContainerPort: 9090, Protocol: corev1.ProtocolTCP},
			}}},
			Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 80, Protocol: corev1.ProtocolTCP},
			}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	want.Namespace, want.Name, want.UID, want.ResourceVersion = "ns", "a", "u", got.ResourceVersion
	want.Labels = map[string]string{"app": "web"}
	want.Annotations = map[string]string{
		"k8s.v1.cni.cncf.io/network-status": `[{"name": "ns/net", "interface": "net1", "ips": ["10.0.0.1"]}]`,
		"k8s.v1.cni.cncf.io/networks":       "net",
	}
	compare(t, got, want)
	if far := s.sink.pod("ns/far"); len(far.Annotations) > 0 {
		t.Errorf("of a pod on another node is kept: %v", far.Annotations)
	}
}
