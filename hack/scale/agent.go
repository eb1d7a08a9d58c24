package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
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
	// From the write of an object to the acknowledgement of its last rules, sorted. A pod that was queued again before
	// it was finished counts once.
	Latency []time.Duration
}

// node holds the parts of the agent's process.
type node struct {
	cache    *cache.Cache
	pipeline *agent.Pipeline
	// Observer of the informers and of the reconciler.
	latency latency
	peak    peak
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
	n := &node{latency: latency{dirty: map[cache.PodID]time.Time{}}}
	options := cache.Options{Node: "node-0", NetworkPlugins: agent.DefaultNetworkPlugins()}
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
	running.Go(func() { n.peak.watch(ctx) })
	running.Go(func() { n.pipeline.Run(ctx) })
	return n.answer(commands, answers)
}

// answer waits until the first rules are in force, measures the time, and then answers commands.
func (n *node) answer(commands io.Reader, answers io.Writer) error {
	for !n.pipeline.Informers.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	// The time until here is the server's and the network's, so it does not count.
	arrived := time.Now()
	for !n.pipeline.Reconciler.Settled() {
		time.Sleep(time.Millisecond)
	}
	n.settled = time.Since(arrived)
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		// A state is taken at rest: otherwise the latencies of the last events would be missing.
		for !n.pipeline.Reconciler.Settled() {
			time.Sleep(time.Millisecond)
		}
		if err := json.NewEncoder(answers).Encode(n.state()); err != nil {
			return err
		}
		// The next answer covers only the time from here. The garbage collection of state must not count as the agent's
		// CPU time.
		n.latency.reset()
		n.cpu = cpuTime()
	}
	return lines.Err()
}

// state takes the numbers of the time since the last answer, and the live heap.
func (n *node) state() state {
	// CPU time first: the garbage collections below are the measurement's own.
	s := state{Settled: n.settled, Peak: n.peak.bytes.Load(), CPU: cpuTime() - n.cpu}
	s.Events, s.Queue, s.Latency = n.latency.take()
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
	// The pods that are queued or being worked on, with the time of the write that queued them first.
	dirty  map[cache.PodID]time.Time
	events int
	queue  int // largest length of dirty
	list   []time.Duration
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
	l.events++
	l.mu.Unlock()
}

// Queued implements reconciler.Observer.
func (l *latency) Queued(pods []cache.PodID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range pods {
		// A pod that waits already keeps its earlier time: its rules are late since then.
		if _, waits := l.dirty[pod]; !waits {
			l.dirty[pod] = l.sent
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
		l.list = append(l.list, now.Sub(sent))
		delete(l.dirty, pod)
	}
}

// reset begins a new measurement. Pods that are queued stay queued.
func (l *latency) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.queue, l.list = 0, 0, nil
}

// take returns the numbers since the last reset.
func (l *latency) take() (events, queue int, list []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events, l.queue, slices.Sorted(slices.Values(l.list))
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

// percentile returns the value of a sorted list below which the share p lies; 0 if the list is empty.
func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(float64(len(list))*p))]
}
