package informers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// SandboxSink is where sandboxes go; *cache.Cache is one.
type SandboxSink interface {
	SetSandbox(uid types.UID, s cache.Sandbox)
	DeleteSandbox(uid types.UID)
}

// SandboxConfig is what Sandboxes are made of. Sink and Notify are needed.
type SandboxConfig struct {
	Endpoint   string // the runtime's socket; empty: the well-known ones
	HostPrefix string // where the host's root directory is
	Sink       SandboxSink
	Notify     func() // called after every change of the sink; must not block

	Found  func(uid types.UID, created time.Time) // told before the sink of each new sandbox; may be nil
	Outage func(source string, down bool)         // told when the runtime is lost, and when it works again; may be nil
}

// sandboxSource is how an outage of the runtime is called.
const sandboxSource = "Sandbox"

// The pace of the polls.
const (
	pollInterval   = time.Second            // when nothing happens, like the kubelet
	pollEager      = 50 * time.Millisecond  // after a pod that has no sandbox yet; doubles up to pollInterval
	pollSpacing    = 100 * time.Millisecond // at least, whatever happens
	outageInterval = 10 * time.Second       // at most between tries while the runtime cannot be reached
	statusInterval = 30 * time.Second       // at most between tries to learn of one sandbox
	statusParallel = 8
)

// Sandboxes follow the pod sandboxes of the node's container runtime through CRI, and tell the sink the network
// namespace of each: the newest sandbox that is ready, for each pod that is not on the host's network.
type Sandboxes struct {
	config SandboxConfig
	pokes  chan struct{}
	synced atomic.Bool

	mu      sync.Mutex
	told    map[types.UID]cache.Sandbox // what the sink has
	news    map[string]news             // by sandbox ID
	eager   time.Duration               // the next interval, below pollInterval while a sandbox is expected
	resolve map[string]*resolution      // by sandbox ID; of the polling goroutine alone
	client  internalapi.RuntimeService  // nil: not connected yet
}

// resolution is what is known of one sandbox.
type resolution struct {
	created time.Time
	done    bool
	netNS   string // empty when done: on the host's network, or closed
	again   time.Time
	pause   time.Duration
	logged  string
}

// NewSandboxes makes a source that does nothing until Run.
func NewSandboxes(config SandboxConfig) *Sandboxes {
	return &Sandboxes{
		config:  config,
		pokes:   make(chan struct{}, 1),
		told:    map[types.UID]cache.Sandbox{},
		news:    map[string]news{},
		eager:   pollInterval,
		resolve: map[string]*resolution{},
	}
}

// HasSynced says whether the runtime has listed its sandboxes once.
func (s *Sandboxes) HasSynced() bool { return s.synced.Load() }

// Poke says that something happened to a local pod, so that the runtime is asked now, and again soon while the pod has
// no sandbox. It does not block.
func (s *Sandboxes) Poke(uid types.UID) {
	s.mu.Lock()
	if _, known := s.told[uid]; !known {
		s.eager = pollEager
	}
	s.mu.Unlock()
	select {
	case s.pokes <- struct{}{}:
	default:
	}
}

// Run polls until the context ends.
func (s *Sandboxes) Run(ctx context.Context) {
	log := logr.FromContextOrDiscard(ctx)
	defer s.disconnect(ctx)
	out := newOutage(log, "Listing the container runtime's sandboxes")
	if tell := s.config.Outage; tell != nil {
		out.told = func(down bool) { tell(sandboxSource, down) }
	}
	pause := pollInterval
	for ctx.Err() == nil {
		err := s.poll(ctx)
		switch {
		case err == nil:
			out.works()
			pause = pollInterval
			s.sleep(ctx, s.nextInterval(), s.pokes)
		case ctx.Err() == nil:
			out.failed(err)
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

// poll brings the sink up to date with the runtime.
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
	s.synced.Store(true)
	return nil
}

// list returns the sandboxes that are ready.
func (s *Sandboxes) list(ctx context.Context) ([]*runtimeapi.PodSandbox, error) {
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	list, err := s.client.ListPodSandbox(quiet(ctx), &runtimeapi.PodSandboxFilter{State: ready})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	// A runtime may know no filters.
	return slices.DeleteFunc(list, func(p *runtimeapi.PodSandbox) bool {
		return p.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || p.GetMetadata().GetUid() == ""
	}), nil
}

// connect finds the runtime and makes the client, once; the client comes back by itself after an outage.
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
		logr.FromContextOrDiscard(ctx).Error(err, "Closing the connection to the container runtime")
	}
}

// forget drops what is known of sandboxes that are no longer there.
func (s *Sandboxes) forget(sandboxes []*runtimeapi.PodSandbox) {
	listed := make(map[string]bool, len(sandboxes))
	for _, p := range sandboxes {
		listed[p.GetId()] = true
	}
	for id := range s.resolve {
		if !listed[id] {
			delete(s.resolve, id)
		}
	}
}

// resolveAll asks for the network namespaces that are not known yet, some at a time: a sandbox that cannot be resolved
// is tried again later and holds up no other.
func (s *Sandboxes) resolveAll(ctx context.Context, sandboxes []*runtimeapi.PodSandbox) {
	var running sync.WaitGroup
	slots := make(chan struct{}, statusParallel)
	for _, p := range sandboxes {
		r := s.resolve[p.GetId()]
		if r == nil {
			r = &resolution{created: time.Unix(0, p.GetCreatedAt())}
			s.resolve[p.GetId()] = r
		}
		if r.done || time.Now().Before(r.again) {
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			s.resolveOne(ctx, p, r)
		})
	}
	running.Wait()
}

func (s *Sandboxes) resolveOne(ctx context.Context, p *runtimeapi.PodSandbox, r *resolution) {
	netNS, err := s.netNSOf(ctx, p.GetId())
	if err == nil {
		r.done, r.netNS = true, netNS
		return
	}
	r.pause = min(max(2*r.pause, pollSpacing), statusInterval)
	r.again = time.Now().Add(r.pause)
	if gone := status.Code(err) == codes.NotFound; !gone && ctx.Err() == nil && r.logged != err.Error() {
		r.logged = err.Error()
		logr.FromContextOrDiscard(ctx).Error(err, "The network namespace of a sandbox is not known; it is tried again",
			"pod", p.GetMetadata().GetNamespace()+"/"+p.GetMetadata().GetName(), "sandbox", p.GetId())
	}
}

// netNSOf asks the runtime for a sandbox's network namespace. It is empty for one on the host's network, which no
// policy may ever touch, and for one whose network is torn down.
func (s *Sandboxes) netNSOf(ctx context.Context, id string) (string, error) {
	answer, err := s.client.PodSandboxStatus(quiet(ctx), id, true)
	if err != nil {
		return "", fmt.Errorf("status of the sandbox: %w", err)
	}
	options := answer.GetStatus().GetLinux().GetNamespaces().GetOptions()
	if options.GetNetwork() == runtimeapi.NamespaceMode_NODE {
		return "", nil
	}
	info, err := parseSandboxInfo(answer.GetInfo())
	switch {
	case errors.Is(err, errNetNSClosed):
		return "", nil
	case err != nil:
		return "", err
	}
	return openableNetNS(s.config.HostPrefix, info)
}

// newest picks the newest sandbox of each pod. While its network namespace is not known, the sandbox that the sink has
// stays, if it still is there.
func (s *Sandboxes) newest(sandboxes []*runtimeapi.PodSandbox) map[types.UID]cache.Sandbox {
	slices.SortFunc(sandboxes, func(a, b *runtimeapi.PodSandbox) int {
		return cmp.Or(cmp.Compare(a.GetCreatedAt(), b.GetCreatedAt()), cmp.Compare(a.GetId(), b.GetId()))
	})
	want := map[types.UID]cache.Sandbox{}
	for _, p := range sandboxes {
		uid := types.UID(p.GetMetadata().GetUid())
		switch r := s.resolve[p.GetId()]; {
		case r.done && r.netNS != "":
			want[uid] = cache.Sandbox{ID: p.GetId(), Pod: podOf(p.GetMetadata()), NetNS: r.netNS}
		case r.done:
			delete(want, uid)
		}
	}
	return want
}

// podOf is the pod that a sandbox is of. CRI and NRI have types of their own for the same.
func podOf(p interface {
	GetNamespace() string
	GetName() string
}) cache.Key {
	return cache.Key{Namespace: p.GetNamespace(), Name: p.GetName()}
}

// tell gives the sink the difference from what it has, and says whether there was any.
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
