package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// state describes the agent's process at the time of an answer. The process prints a state as a line of JSON for each
// line that it reads.
type state struct {
	Settled time.Duration // from the last object until all rules were in force
	Heap    uint64        // live, bytes
	Peak    uint64        // largest heap so far, bytes
	CPU     time.Duration // since the last answer
	Events  int           // objects since the last answer
	Queue   int           // largest number of pods in the queue since then
	// From the write of an object to the acknowledgement of its rules in each pod. A pod that was queued again before it was
	// finished counts once.
	Latency report.Samples
	// Whole is the same until all pods have the rules. Objects that overlap count once, from the first.
	Whole report.Samples
	// Span is the time from the first object, when it was decoded, to the acknowledgement of the last rules.
	Span  time.Duration
	Floor report.Samples // answer to floorCommand
}

// Commands that the agent's process reads. It answers each with a state.
const (
	stateCommand = "state"
	keepCommand  = "keep"  // keeps the tables of now, for floorCommand
	floorCommand = "floor" // measures the change from the kept tables to the tables of now
)

// node holds the parts of the agent's process.
type node struct {
	cache    *cache.Cache
	pipeline *agent.Pipeline
	network  *lab.Lab
	features engine.Features
	// Observer of the informers and of the reconciler.
	latency latency
	peak    peak
	kept    []engine.Tables // tables of the local pods, see keepCommand
	settled time.Duration
	cpu     time.Duration // at the last answer, to subtract
}

// runAgent runs an agent against the server. It answers the commands, and returns when there are no more commands.
func runAgent(url string, local int, commands io.Reader, answers io.Writer) error {
	network, err := lab.New()
	if err != nil {
		return err
	}
	defer network.Close() //nolint:errcheck // the kernel removes the namespaces with the process
	features, err := engine.Probe()
	if err != nil {
		return err
	}
	n := &node{network: network, features: features, latency: latency{dirty: map[cache.PodID]time.Time{}}}
	options := cache.Options{Node: "node-0", NetworkPlugins: cache.DefaultNetworkPlugins()}
	options.Limits = policy.DefaultLimits()
	options.Limits.NamespaceAddresses = 4 * peers // a namespace has the large group of some measurements; a pod has two addresses
	// The clusters of this program have no bridges, so a kernel without bridge hooks is no problem.
	options.Bridge, _ = agent.ProbeBridge(options) //nolint:errcheck // no pod of the cluster has a bridge
	n.cache = cache.New(options)
	settings := informers.Settings{Node: options.Node, Limits: n.cache.Limits()}
	source, err := informers.FromClients(&rest.Config{Host: url, QPS: -1}, settings)
	if err != nil {
		return err
	}
	r := reconciler.New(n.cache, reconciler.OpenNamespace(features), reconciler.BudgetOf(n.cache.Limits()), &n.latency)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := informers.New(ctx, informers.Config{Source: source, Sink: n.cache, Settings: settings, Notify: r.Notify, Observer: &n.latency})
	n.pipeline = &agent.Pipeline{Informers: in, Reconciler: r, Sandboxes: nowhere{}}
	// The runtime is not part of the measurement, so all sandboxes exist before the agent starts.
	for i := range local {
		host, err := network.Bare("pod-" + strconv.Itoa(i))
		if err != nil {
			return err
		}
		n.cache.SetSandbox(uidOf(i), cache.Sandbox{ID: strconv.Itoa(i), NetNS: host.NetNS()})
	}
	var running sync.WaitGroup
	defer running.Wait()
	// Deferred last, so it runs first: Wait would wait forever without it.
	defer cancel()
	starting, started := context.WithCancel(ctx)
	running.Go(func() { n.peak.watch(starting) })
	running.Go(func() { n.pipeline.Run(ctx) })
	n.awaitStart()
	started() // samples of the heap stop the world, which later measurements would notice
	return n.answer(local, commands, answers)
}

// awaitStart waits until the first rules are in force, and measures the time.
func (n *node) awaitStart() {
	for !n.pipeline.Informers.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	// The time until here is the server's and the network's, so it does not count.
	arrived := time.Now()
	for !n.pipeline.Reconciler.Settled() {
		time.Sleep(time.Millisecond)
	}
	n.settled = time.Since(arrived)
}

// answer answers commands.
func (n *node) answer(local int, commands io.Reader, answers io.Writer) error {
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		name, number, _ := strings.Cut(lines.Text(), " ")
		events, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		// A state is taken at rest: otherwise the latencies of the last events would be missing.
		for !n.latency.has(events) || !n.pipeline.Reconciler.Settled() {
			time.Sleep(time.Millisecond)
		}
		s := n.state()
		switch name {
		case keepCommand:
			n.kept, err = n.tables(local)
		case floorCommand:
			s.Floor, err = n.floor(local)
		}
		// The next answer covers the time from here on: the caller causes the next event when it has this answer. The garbage
		// collection of state must not count as the agent's CPU time.
		n.latency.reset()
		n.cpu = cpuTime()
		if err := errors.Join(err, json.NewEncoder(answers).Encode(s)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// state takes the numbers of the time since the last answer, and the live heap.
func (n *node) state() state {
	// CPU time first: the garbage collections below are the measurement's own.
	s := state{Settled: n.settled, Peak: n.peak.bytes.Load(), CPU: cpuTime() - n.cpu}
	n.latency.take(&s)
	for range 2 { // the second run frees objects with finalizers, which the first run only queues
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap = m.HeapAlloc
	return s
}

// nowhere stands in for the container runtime. It reports nothing: all sandboxes are set before the agent starts.
type nowhere struct{}

func (nowhere) Run(ctx context.Context) { <-ctx.Done() }
func (nowhere) HasSynced() bool         { return true }

// work has a name of its own, because both embedded fields of latency would be called Unobserved.
type work = reconciler.Unobserved

// latency measures the time from the API server's write of an object until the kernel acknowledged the last rules that follow.
type latency struct {
	informers.Unobserved // the methods of the observers that do nothing here
	work

	mu sync.Mutex
	// When the server wrote the object that is being handled. The informers hand over one object after another.
	sent time.Time
	// When the server wrote the oldest object since pods were last queued; zero: there is none.
	unqueued time.Time
	// The pods that are queued or being worked on, with the time of the write that queued them first.
	dirty  map[cache.PodID]time.Time
	events int
	queue  int // largest length of dirty
	list   report.Samples
	// whole has the times until dirty was empty again, from since, when it was empty before.
	whole       report.Samples
	since       time.Time
	first, last time.Time // first object and acknowledgement of the last rules since the last reset
}

// Received implements informers.Observer.
func (l *latency) Received(r informers.Receipt) {
	if r.Kind != informers.KindPod {
		// Only the pods' versions are times, see stream.send.
		return
	}
	ns, _ := strconv.ParseInt(r.Version, 10, 64) //nolint:errcheck // the server made it
	l.mu.Lock()
	l.sent = time.Unix(0, ns)
	if l.events == 0 {
		l.first = time.Now()
	}
	l.events++
	l.mu.Unlock()
}

// Taken implements informers.Observer. The informers notify the reconciler after it.
func (l *latency) Taken(informers.Receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unqueued.IsZero() {
		l.unqueued = l.sent
	}
}

// Queued implements reconciler.Observer.
func (l *latency) Queued(pods []cache.PodID, _ time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.unqueued
	if sent.IsZero() { // the pods of an object that is not taken yet
		sent = l.sent
	}
	l.unqueued = time.Time{}
	if len(l.dirty) == 0 {
		l.since = sent
	}
	for _, pod := range pods {
		// A pod that waits already keeps its earlier time: its rules are late since then.
		if _, waits := l.dirty[pod]; !waits {
			l.dirty[pod] = sent
		}
	}
	l.queue = max(l.queue, len(l.dirty))
}

// Finished implements reconciler.Observer.
func (l *latency) Finished(pod cache.PodID, _ error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent, ok := l.dirty[pod]; ok {
		l.list, l.last = append(l.list, now.Sub(sent)), now
		delete(l.dirty, pod)
		if len(l.dirty) == 0 {
			l.whole = append(l.whole, now.Sub(l.since))
		}
	}
}

// has reports whether so many events came since the last reset.
func (l *latency) has(events int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events >= events
}

// reset begins a new measurement. Pods that are queued stay queued.
func (l *latency) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.queue, l.list, l.whole = 0, 0, nil, nil
}

// take puts the numbers since the last reset into a state.
func (l *latency) take(s *state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Events, s.Queue, s.Latency, s.Whole, s.Span = l.events, l.queue, l.list, l.whole, l.last.Sub(l.first)
}

// peak is the largest heap that a sample found. A short peak between two samples goes unseen.
type peak struct{ bytes atomic.Uint64 }

func (p *peak) watch(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			p.bytes.Store(max(p.bytes.Load(), m.HeapAlloc))
		case <-ctx.Done():
			return
		}
	}
}

// cpuTime returns the CPU time of the process, in user and kernel mode.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
