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

// Sink takes the sandboxes; *cache.Cache is one.
type Sink interface {
	SetSandbox(uid types.UID, s cache.Sandbox)
	DeleteSandbox(uid types.UID)
}

// Config is what Sandboxes are made of. Sink and Notify are needed.
type Config struct {
	Endpoint   string // socket of the runtime; empty: the well-known sockets
	HostPrefix string // where the host's root directory is
	Sink       Sink
	Notify     func() // called after every change of the sink; must not block

	Found  func(uid types.UID, created time.Time) // told of each new sandbox before the sink; may be nil
	Outage func(source string, down bool)         // told when the runtime is lost, and when it works again; may be nil
}

// SourceName is the name of the runtime's sandboxes as an input.
const SourceName = "Sandbox"

// Pace of the polls.
const (
	pollInterval   = time.Second            // when nothing happens, as the kubelet
	pollEager      = 50 * time.Millisecond  // after a pod without a sandbox; doubles up to pollInterval
	pollSpacing    = 100 * time.Millisecond // at least, unless the interval is shorter
	outageInterval = 10 * time.Second       // at most between tries while the runtime cannot be reached
	syncPatience   = 2 * time.Second        // for the first answers about sandboxes
)

// Sandboxes follow the pod sandboxes of the node's container runtime through CRI, and tell the sink the network namespace
// of each: the newest sandbox that is ready, for each pod that is not on the host's network.
type Sandboxes struct {
	config Config
	pokes  chan struct{}
	synced atomic.Bool

	places, retryPlaces chan struct{} // for questions to the runtime at the same time
	asking              sync.WaitGroup

	mu      sync.Mutex
	told    map[types.UID]cache.Sandbox // what the sink has
	news    map[string]news             // by sandbox ID
	resolve map[string]*resolution      // by sandbox ID
	eager   time.Duration               // the next interval, below pollInterval while a sandbox is expected
	listed  time.Time                   // the first list; zero: none yet
	client  internalapi.RuntimeService  // of the polling goroutine; nil: not connected yet
}

// New returns Sandboxes that do nothing until Run.
func New(config Config) *Sandboxes {
	return &Sandboxes{
		config:      config,
		pokes:       make(chan struct{}, 1),
		places:      make(chan struct{}, statusParallel),
		retryPlaces: make(chan struct{}, retryParallel),
		told:        map[types.UID]cache.Sandbox{},
		news:        map[string]news{},
		eager:       pollInterval,
		resolve:     map[string]*resolution{},
	}
}

// HasSynced reports whether the runtime has listed its sandboxes once, and has answered about each or taken too long.
func (s *Sandboxes) HasSynced() bool { return s.synced.Load() }

// Poke makes the next poll come now, since something happened to a local pod, and the polls after it soon while the pod
// has no sandbox. It does not block.
func (s *Sandboxes) Poke(uid types.UID) {
	s.mu.Lock()
	if _, known := s.told[uid]; !known {
		s.eager = pollEager
	}
	s.mu.Unlock()
	s.wake()
}

func (s *Sandboxes) wake() {
	select {
	case s.pokes <- struct{}{}:
	default:
	}
}

// Run polls until the context ends.
func (s *Sandboxes) Run(ctx context.Context) {
	defer s.disconnect(ctx)
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
			s.sleep(ctx, s.nextInterval(), s.pokes)
		case ctx.Err() == nil:
			out.Failed(err)
			s.sleep(ctx, pause, nil)
			pause = min(2*pause, outageInterval)
		}
	}
}

// sleep waits for the interval or a poke, but for the spacing at least.
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

func (s *Sandboxes) nextInterval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	interval := s.eager
	s.eager = min(2*s.eager, pollInterval)
	return interval
}

// poll brings the sink up to date with the runtime, as far as the runtime has answered.
func (s *Sandboxes) poll(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	sandboxes, err := s.list(ctx)
	if err != nil {
		return err
	}
	s.forget(sandboxes)
	s.resolveAll(ctx, sandboxes)
	if s.tell(s.newest(sandboxes)) {
		s.config.Notify()
	}
	s.checkSynced()
	return nil
}

// checkSynced notes that no first answer about a sandbox is outstanding, or that the patience is over.
func (s *Sandboxes) checkSynced() {
	if s.synced.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed.IsZero() {
		s.listed = time.Now()
	}
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
	// A runtime may ignore filters.
	return slices.DeleteFunc(list, func(p *runtimeapi.PodSandbox) bool {
		return p.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || p.GetMetadata().GetUid() == ""
	}), nil
}

// connect finds the runtime and makes the client, once; the client reconnects by itself after an outage.
func (s *Sandboxes) connect(ctx context.Context) error {
	if s.client != nil {
		return nil
	}
	socket, err := findEndpoint(s.config.Endpoint, s.config.HostPrefix)
	if err != nil {
		return err
	}
	client, err := dialRuntime(ctx, socket)
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

// forget drops what is known about sandboxes that are gone.
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

// newest picks the newest sandbox of each pod. While its network namespace is unknown, the sandbox that the sink has stays,
// if it still exists.
func (s *Sandboxes) newest(sandboxes []*runtimeapi.PodSandbox) map[types.UID]cache.Sandbox {
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
			delete(want, uid)
		case s.told[uid].ID == p.GetId():
			want[uid] = s.told[uid] // known from NRI
		}
	}
	return want
}

// keyOf returns the key of the pod that a sandbox belongs to. CRI and NRI have types of their own for it.
func keyOf(p interface {
	GetNamespace() string
	GetName() string
}) cache.Key {
	return cache.Key{Namespace: p.GetNamespace(), Name: p.GetName()}
}

// tell gives the sink the difference from what it has, and reports whether there was any.
func (s *Sandboxes) tell(want map[types.UID]cache.Sandbox) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.correct(want)
	changed := false
	for uid := range s.told {
		if _, ok := want[uid]; !ok {
			s.config.Sink.DeleteSandbox(uid)
			changed = true
		}
	}
	for uid, sandbox := range want {
		if s.told[uid] != sandbox {
			if r := s.resolve[sandbox.ID]; r != nil && s.config.Found != nil {
				s.config.Found(uid, r.created)
			}
			s.config.Sink.SetSandbox(uid, sandbox)
			changed = true
		}
	}
	s.told = want
	return changed
}
