package informers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

var (
	limits   = policy.DefaultLimits()
	settings = informers.Settings{Node: "here", Limits: &limits}
)

// started are informers on a source, stopped with the test, with their output.
type started struct {
	sink     *sink
	log      *await.Log
	events   *warnings
	observer *observer
	notified atomic.Int32
	in       *informers.Informers
}

func start(t *testing.T, source informers.Source) *started {
	t.Helper()
	sink := newSink()
	s := startInto(t, source, sink)
	s.sink = sink
	return s
}

// startInto starts informers that feed any sink.
func startInto(t *testing.T, source informers.Source, sink informers.Sink) *started {
	t.Helper()
	s := &started{log: &await.Log{}, events: &warnings{}, observer: newObserver()}
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), s.log.Logger()))
	s.in = informers.New(ctx, informers.Config{
		Source: source, Sink: sink, Settings: settings, Notify: func() { s.notified.Add(1) },
		Reporter: informers.NewReporter(s.events), Observer: s.observer,
	})
	s.in.Start(ctx)
	t.Cleanup(func() { cancel(); s.in.Wait() })
	return s
}

func (s *started) synced(t *testing.T) {
	t.Helper()
	await.That(t, "in sync", s.in.HasSynced)
}

// sink is a Sink that remembers what it holds, and reports the problems that a test gives it.
type sink struct {
	mu       sync.Mutex
	held     map[string]map[cache.Key]string // by kind; the value differs between versions of an object
	pods     map[cache.Key]cache.Pod
	policies map[cache.Key]*policy.Policy
	problems map[string][]policy.Problem // of pods, by name
	wanted   []cache.Key                 // for TakeRefetch
	restored []string
}

func newSink() *sink {
	s := &sink{
		held: map[string]map[cache.Key]string{}, pods: map[cache.Key]cache.Pod{}, policies: map[cache.Key]*policy.Policy{},
		problems: map[string][]policy.Problem{},
	}
	for _, kind := range []string{"pod", "ns", "nad", "policy"} {
		s.held[kind] = map[cache.Key]string{}
	}
	return s
}

func (s *sink) put(kind string, key cache.Key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[kind][key] = value
}

func (s *sink) drop(kind string, key cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held[kind], key)
}

func (s *sink) keys(kind string) (keys []cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.held[kind] {
		keys = append(keys, key)
	}
	return keys
}

func (s *sink) UpsertPod(p cache.Pod) []policy.Problem {
	s.put("pod", p.Key, p.Labels.Get("l"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[p.Key] = p
	return s.problems[p.Name]
}

func (s *sink) UpsertPolicy(p *policy.Policy) {
	s.put("policy", p.Key, fmt.Sprint(p.Networks))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies[p.Key] = p
}

func (s *sink) RestorePolicy(p *policy.Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = append(s.restored, p.Key.String()+" "+p.Version)
}

func (s *sink) TakeRefetch() []cache.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.wanted
	s.wanted = nil
	return wanted
}

func (s *sink) UpsertNamespace(n cache.Namespace) {
	s.put("ns", cache.Key{Name: n.Name}, n.Labels.Get("l"))
}
func (s *sink) UpsertNAD(n cache.NAD)       { s.put("nad", n.Key, n.PluginType) }
func (s *sink) DeletePod(key cache.Key)     { s.drop("pod", key) }
func (s *sink) DeleteNamespace(name string) { s.drop("ns", cache.Key{Name: name}) }
func (s *sink) DeleteNAD(key cache.Key)     { s.drop("nad", key) }
func (s *sink) DeletePolicy(key cache.Key)  { s.drop("policy", key) }
func (s *sink) Pods() []cache.Key           { return s.keys("pod") }
func (s *sink) Namespaces() []cache.Key     { return s.keys("ns") }
func (s *sink) NADs() []cache.Key           { return s.keys("nad") }
func (s *sink) Policies() []cache.Key       { return s.keys("policy") }

// want makes the sink ask for policies again.
func (s *sink) want(policies ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range policies {
		s.wanted = append(s.wanted, cache.Key{Namespace: "ns", Name: name})
	}
}

func (s *sink) takeRestored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	restored := s.restored
	s.restored = nil
	return restored
}

func (s *sink) setProblems(pod string, problems ...policy.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems[pod] = problems
}

func (s *sink) pod(name string) cache.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods[cache.Key{Namespace: "ns", Name: name}]
}

func (s *sink) policy(name string) *policy.Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policies[cache.Key{Namespace: "ns", Name: name}]
}

// state is all that the sink holds, as lines.
func (s *sink) state() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for kind, held := range s.held {
		for key, value := range held {
			lines = append(lines, fmt.Sprintf("%s %s = %s", kind, key, value))
		}
	}
	slices.Sort(lines)
	return lines
}

// holds compares the state.
func (s *sink) holds(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := s.state(); !slices.Equal(got, want) {
		t.Fatalf("state is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// becomes waits for a state.
func (s *sink) becomes(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	for deadline := time.Now().Add(time.Minute); !slices.Equal(s.state(), want) && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
	s.holds(t, want...)
}

// warnings is an EventSink that remembers.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) Warn(about informers.Subject, reason policy.Reason, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, about.Kind+" "+about.String()+" "+string(reason)+": "+message)
}

// take returns the warnings since the last call, sorted.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	slices.Sort(all)
	return all
}

// observer is an Observer that remembers.
type observer struct {
	mu      sync.Mutex
	outages map[string][]bool             // each loss and each return, by kind
	objects map[string]*informers.Receipt // the last that the sink took, by kind and name; nil: gone
}

func newObserver() *observer {
	return &observer{outages: map[string][]bool{}, objects: map[string]*informers.Receipt{}}
}

func (o *observer) Outage(kind string, down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outages[kind] = append(o.outages[kind], down)
}

func (o *observer) Received(informers.Receipt) {}

func (o *observer) Taken(r informers.Receipt) { o.note(r.Kind, r.Key, &r) }

func (o *observer) Gone(kind string, key cache.Key) { o.note(kind, key, nil) }

func (o *observer) note(kind string, key cache.Key, r *informers.Receipt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.objects[kind+" "+key.String()] = r
}

func (o *observer) outagesOf(kind string) []bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.outages[kind])
}

// last returns the last version of an object that the sink took; nil: the object is gone.
func (o *observer) last(object string) (r *informers.Receipt, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, known = o.objects[object]
	return r, known
}

// load makes the documents all that the files serve.
func load(t *testing.T, f *informers.Files, documents ...string) {
	t.Helper()
	m, err := informers.ReadFS(fstest.MapFS{"world.yaml": {Data: []byte(strings.Join(documents, "\n---\n"))}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Load(m); err != nil {
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

func nadDoc(plugin string) string {
	return fmt.Sprintf(`{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition,
  metadata: {namespace: ns, name: net}, spec: {config: '{"type": %q}'}}`, plugin)
}

func policyDoc(name, networks, spec string) string {
	return fmt.Sprintf(`{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: %s,
  uid: uid-%s, annotations: {k8s.v1.cni.cncf.io/policy-for: %q}}, spec: %s}`, name, name, networks, spec)
}
