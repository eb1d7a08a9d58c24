package sandbox

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/outage"
)

// Sink receives the sandboxes, by the UID of their pod. *cache.Cache implements it. The methods are called under the
// lock of the Sandboxes, so they must not call back.
type Sink interface {
	SetSandbox(uid types.UID, s cache.Sandbox)
	DeleteSandbox(uid types.UID)
}

// Config configures Sandboxes. Sink and Notify are required.
type Config struct {
	Endpoint   string // socket of the runtime; empty: the well-known sockets
	HostPrefix string // directory where the host's root directory is mounted
	Sink       Sink
	Notify     func() // called after changes of the sink; must not block

	Found  func(uid types.UID, created time.Time) // called for each new sandbox before the sink; nil: not called
	Outage func(source string, down bool)         // called when the runtime fails, and when it works again; nil: not called
}

// SourceName is the name of the runtime's sandboxes as an input, in metrics and health.
const SourceName = "Sandbox"

// Timing of the polls.
const (
	pollInterval   = time.Second            // regular interval, the same as the kubelet's
	pollEager      = 50 * time.Millisecond  // interval while a sandbox is expected; doubles up to pollInterval
	pollSpacing    = 100 * time.Millisecond // minimum interval, unless pollEager is shorter
	outageInterval = 10 * time.Second       // maximum pause between retries in an outage
	syncPatience   = 2 * time.Second        // timeout for the first answers about sandboxes
)

// Sandboxes follow the pod sandboxes of the node's container runtime through CRI. They give the sink the newest ready sandbox of
// each pod with its network namespace, except for pods on the host's network. They are safe for concurrent use.
type Sandboxes struct {
	config Config
	// pokes has a buffer of 1 and wakes Run.
	pokes  chan struct{}
	synced atomic.Bool

	places, retryPlaces chan struct{}  // limit concurrent requests, see resolveAll
	asking              sync.WaitGroup // goroutines of resolveAll

	// mu guards the fields below.
	mu sync.Mutex
	// current is the last state that the sink got, so only differences are passed on.
	current map[types.UID]cache.Sandbox // the sandboxes in the sink
	// events corrects the lists for half a minute after an NRI event, see sandbox_event.go.
	events  map[string]sandboxEvent    // by sandbox ID
	resolve map[string]*resolution     // by sandbox ID
	eager   time.Duration              // the next interval, below pollInterval while a sandbox is expected
	listed  time.Time                  // time of the first list; zero: no list yet
	client  internalapi.RuntimeService // set by the polling goroutine; nil: not connected yet
}

// New returns Sandboxes that do nothing until Run.
func New(config Config) *Sandboxes {
	return &Sandboxes{
		config:      config,
		pokes:       make(chan struct{}, 1),
		places:      make(chan struct{}, statusParallel),
		retryPlaces: make(chan struct{}, retryParallel),
		current:     map[types.UID]cache.Sandbox{},
		events:      map[string]sandboxEvent{},
		eager:       pollInterval,
		resolve:     map[string]*resolution{},
	}
}

// HasSynced reports whether the sink has the sandboxes of the first list. Sandboxes for which the runtime failed or took too long
// do not count, so a sandbox that hangs does not block the start of the agent.
func (s *Sandboxes) HasSynced() bool { return s.synced.Load() }

// Poke triggers a poll now, after a change of a local pod. If the pod has no sandbox, the next polls follow soon too, since its
// sandbox may be about to start. It does not block.
func (s *Sandboxes) Poke(uid types.UID) {
	s.mu.Lock()
	if _, known := s.current[uid]; !known {
		s.eager = pollEager
	}
	s.mu.Unlock()
	s.wake()
}

// wake ends the current sleep of Run.
func (s *Sandboxes) wake() {
	select {
	case s.pokes <- struct{}{}:
	default:
	}
}

// Run polls until the context ends.
func (s *Sandboxes) Run(ctx context.Context) {
	defer s.disconnect(ctx)
	// The requests end with the context, since each has it as its parent.
	defer s.asking.Wait()
	out := outage.New(logr.FromContextOrDiscard(ctx), "Listing the sandboxes of the container runtime", func(down bool) {
		if s.config.Outage != nil {
			s.config.Outage(SourceName, down)
		}
	})
	pause := pollInterval
	for ctx.Err() == nil {
		err := s.poll(ctx)
		switch {
		case err == nil:
			out.Works()
			pause = pollInterval
			// Only after a success do pokes shorten the sleep: in an outage, each change of a pod would ask the runtime
			// again.
			s.sleep(ctx, s.nextInterval(), s.pokes)
		case ctx.Err() == nil:
			out.Failed(err)
			s.sleep(ctx, pause, nil)
			pause = min(2*pause, outageInterval)
		}
	}
}

// sleep waits for the interval or a poke, but at least for pollSpacing.
func (s *Sandboxes) sleep(ctx context.Context, interval time.Duration, pokes <-chan struct{}) {
	spacing, full := time.After(min(pollSpacing, interval)), time.After(interval)
	select {
	case <-full:
		return
	case <-pokes:
	case <-ctx.Done():
		return
	}
	select {
	case <-spacing:
	case <-ctx.Done():
	}
}

// nextInterval returns the interval before the next poll, and doubles the interval after it up to pollInterval.
func (s *Sandboxes) nextInterval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	interval := s.eager
	s.eager = min(2*s.eager, pollInterval)
	return interval
}

// poll lists the sandboxes, and updates the sink with the sandboxes whose network namespace is known.
func (s *Sandboxes) poll(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	sandboxes, err := s.list(ctx)
	if err != nil {
		return err
	}
	// The resolution of a sandbox ends with the sandbox.
	s.forget(sandboxes)
	s.resolveAll(ctx, sandboxes)
	if s.updateSink(s.newest(sandboxes)) {
		s.config.Notify()
	}
	// After the sink has the sandboxes.
	s.checkSynced()
	return nil
}

// checkSynced sets synced when the runtime has answered about all sandboxes once, or after syncPatience.
func (s *Sandboxes) checkSynced() {
	if s.synced.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed.IsZero() {
		s.listed = time.Now()
	}
	// A sandbox with a failure behind it does not hold up the start.
	outstanding := false
	for _, r := range s.resolve {
		outstanding = outstanding || r.asking && r.pause == 0
	}
	if outstanding && time.Since(s.listed) < syncPatience {
		s.eager = pollEager
		return
	}
	s.synced.Store(true)
}

// list returns the sandboxes that are ready.
func (s *Sandboxes) list(ctx context.Context) ([]*runtimeapi.PodSandbox, error) {
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	list, err := s.client.ListPodSandbox(quiet(ctx), &runtimeapi.PodSandboxFilter{State: ready})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	// Filtered again, since a runtime may ignore the filter.
	return slices.DeleteFunc(list, func(p *runtimeapi.PodSandbox) bool {
		return p.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || p.GetMetadata().GetUid() == ""
	}), nil
}

// connect finds the runtime and makes the client, unless it exists. The client reconnects by itself after an outage.
func (s *Sandboxes) connect(ctx context.Context) error {
	// The client is made once; it is nil only until the first success.
	if s.client != nil {
		return nil
	}
	sockets, err := findEndpoints(s.config.Endpoint, s.config.HostPrefix)
	if err != nil {
		return err
	}
	client, err := dialFirst(ctx, sockets)
	if err == nil {
		s.client = client
	}
	return err
}

func (s *Sandboxes) disconnect(ctx context.Context) {
	if s.client == nil {
		return
	}
	if err := s.client.Close(quiet(ctx)); err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Closing the connection to the container runtime failed")
	}
}

// forget drops the resolutions of sandboxes that the list does not have.
func (s *Sandboxes) forget(sandboxes []*runtimeapi.PodSandbox) {
	listed := make(map[string]bool, len(sandboxes))
	for _, p := range sandboxes {
		listed[p.GetId()] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.resolve {
		if !listed[id] {
			delete(s.resolve, id)
		}
	}
}

// newest returns the newest sandbox with a known network namespace of each pod. So while the network namespace of a new sandbox
// is unknown, the pod keeps its old sandbox, if it still exists.
func (s *Sandboxes) newest(sandboxes []*runtimeapi.PodSandbox) map[types.UID]cache.Sandbox {
	// Oldest first, so that a newer sandbox replaces an older sandbox of its pod.
	slices.SortFunc(sandboxes, func(a, b *runtimeapi.PodSandbox) int {
		return cmp.Or(cmp.Compare(a.GetCreatedAt(), b.GetCreatedAt()), cmp.Compare(a.GetId(), b.GetId()))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[types.UID]cache.Sandbox{}
	for _, p := range sandboxes {
		uid := types.UID(p.GetMetadata().GetUid())
		switch r := s.resolve[p.GetId()]; {
		case r.done && r.netNS != "":
			want[uid] = cache.Sandbox{ID: p.GetId(), Pod: keyOf(p.GetMetadata()), NetNS: r.netNS, Handler: p.GetRuntimeHandler()}
		case r.done:
			// The network of the newest sandbox is torn down or the host's, so the older sandbox does not count either.
			delete(want, uid)
		case s.current[uid].ID == p.GetId():
			want[uid] = s.current[uid] // known from NRI
		}
	}
	return want
}

// keyOf returns the key of a sandbox's pod. CRI and NRI have different types for it.
func keyOf(p interface {
	GetNamespace() string
	GetName() string
}) cache.Key {
	return cache.Key{Namespace: p.GetNamespace(), Name: p.GetName()}
}

// updateSink makes the sink equal to want, after a correction by recent NRI events. It reports whether anything changed.
func (s *Sandboxes) updateSink(want map[types.UID]cache.Sandbox) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Before the comparison, because an event may hold back a change that an outdated list asks for.
	s.applyEvents(want)
	changed := false
	for uid := range s.current {
		if _, ok := want[uid]; !ok {
			s.config.Sink.DeleteSandbox(uid)
			changed = true
		}
	}
	// Found must precede SetSandbox: it notes the time of creation for the metric of the first tables.
	for uid, sandbox := range want {
		if s.current[uid] != sandbox {
			if r := s.resolve[sandbox.ID]; r != nil && s.config.Found != nil {
				s.config.Found(uid, r.created)
			}
			s.config.Sink.SetSandbox(uid, sandbox)
			changed = true
		}
	}
	s.current = want
	return changed
}
