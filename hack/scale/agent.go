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

// state describes the agent's process. The process prints it as a line of JSON for each line that it reads.
type state struct {
	Settled time.Duration // from the last object until all rules were in force
	Heap    uint64        // live, bytes
	Peak    uint64        // largest heap so far, bytes
	CPU     time.Duration // since the last answer
	Events  int           // objects since the last answer
	Queue   int           // largest number of pods in the queue since then
	Latency []time.Duration
}

// node is the agent's process.
type node struct {
	cache    *cache.Cache
	pipeline *agent.Pipeline
	latency  latency
	peak     peak
	settled  time.Duration
	cpu      time.Duration // at the last answer
}

// runAgent runs an agent for the server, and answers the commands until their end.
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
	for i := range local {
		host, err := network.Bare("pod-" + strconv.Itoa(i))
		if err != nil {
			return err
		}
		n.cache.SetSandbox(uidOf(i), cache.Sandbox{ID: strconv.Itoa(i), NetNS: host.NetNS()})
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { n.peak.watch(ctx) })
	running.Go(func() { n.pipeline.Run(ctx) })
	return n.answer(commands, answers)
}

func (n *node) answer(commands io.Reader, answers io.Writer) error {
	for !n.pipeline.Informers.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	arrived := time.Now()
	for !n.pipeline.Reconciler.Settled() {
		time.Sleep(time.Millisecond)
	}
	n.settled = time.Since(arrived)
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		for !n.pipeline.Reconciler.Settled() {
			time.Sleep(time.Millisecond)
		}
		if err := json.NewEncoder(answers).Encode(n.state()); err != nil {
			return err
		}
		n.latency.reset()
		n.cpu = cpuTime()
	}
	return lines.Err()
}

func (n *node) state() state {
	s := state{Settled: n.settled, Peak: n.peak.bytes.Load(), CPU: cpuTime() - n.cpu}
	s.Events, s.Queue, s.Latency = n.latency.take()
	for range 2 { // the second frees what finalizers held
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap = m.HeapAlloc
	return s
}

// nowhere is the container runtime. All sandboxes are set before.
type nowhere struct{}

func (nowhere) Run(ctx context.Context) { <-ctx.Done() }
func (nowhere) HasSynced() bool         { return true }

type work = reconciler.Unobserved

// latency measures the time from the API server's write of an object until the kernel acknowledged the last rules that follow.
type latency struct {
	informers.Unobserved // the methods of the observers that do nothing here
	work

	mu     sync.Mutex
	sent   time.Time // of the object that is being taken
	dirty  map[cache.PodID]time.Time
	events int
	queue  int
	list   []time.Duration
}

// Received implements informers.Observer.
func (l *latency) Received(r informers.Receipt) {
	if r.Kind != informers.KindPod {
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

func (l *latency) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.queue, l.list = 0, 0, nil
}

func (l *latency) take() (events, queue int, list []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events, l.queue, slices.Sorted(slices.Values(l.list))
}

// peak is the largest heap that was seen.
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

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// percentile returns a value of a sorted list.
func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(float64(len(list))*p))]
}
