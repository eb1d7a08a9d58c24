package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	statusInterval = 30 * time.Second      // maximum pause between two requests about a sandbox
	statusLimit    = 10 * time.Second      // timeout of a request
	statusSoon     = 50 * time.Millisecond // a request that takes longer no longer counts as concurrent
	statusParallel = 16                    // concurrent requests about sandboxes that have not failed before
	retryParallel  = 4                     // concurrent requests about sandboxes that have failed before
)

// resolution is the state of the search for a sandbox's network namespace. The lock of the Sandboxes protects it.
type resolution struct {
	created time.Time     // time of creation according to the runtime
	asking  bool          // a request is running or waits for its turn
	done    bool          // the runtime has answered
	netNS   string        // the path, if done; empty: on the host's network, or torn down
	again   time.Time     // no request before this time
	pause   time.Duration // after the last failure; 0: no failure yet
	logged  string        // the last logged error, to log each error once
}

// resolveAll requests the unknown network namespaces from the runtime, each in the background.
//
// A runtime normally answers within milliseconds, but may hang on single sandboxes. To keep these from delaying others, a request
// frees its place for other requests after a short time, while it still waits. Sandboxes that have failed before are retried with
// growing pauses, and share a few places of their own.
func (s *Sandboxes) resolveAll(ctx context.Context, sandboxes []*runtimeapi.PodSandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range sandboxes {
		r := s.resolve[p.GetId()]
		if r == nil {
			r = &resolution{created: time.Unix(0, p.GetCreatedAt())}
			s.resolve[p.GetId()] = r
		}
		// Each sandbox has at most a single request under way.
		if r.done || r.asking || time.Now().Before(r.again) {
			continue
		}
		// A sandbox that failed before waits for a place among its like, and never before a new sandbox.
		places := s.places
		if r.pause > 0 {
			places = s.retryPlaces
		}
		r.asking = true
		s.asking.Go(func() {
			select {
			case places <- struct{}{}:
				// The place is given back after statusSoon, or at the end of the request if that is sooner.
				leave := sync.OnceFunc(func() { <-places })
				defer leave()
				defer time.AfterFunc(statusSoon, leave).Stop()
				s.resolveOne(ctx, p, r)
			case <-ctx.Done():
			}
		})
	}
}

// resolveOne requests the network namespace of a sandbox and notes the answer. An answer wakes the poll.
func (s *Sandboxes) resolveOne(ctx context.Context, p *runtimeapi.PodSandbox, r *resolution) {
	answer, cancel := context.WithTimeout(ctx, statusLimit)
	netNS, err := s.netNSOf(answer, p.GetId())
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.asking = false
	if err == nil {
		r.done, r.netNS = true, netNS
		// The next poll gives the sandbox to the sink.
		s.wake()
		return
	}
	// The first pause is pollSpacing; it doubles up to statusInterval.
	r.pause = min(max(2*r.pause, pollSpacing), statusInterval)
	r.again = time.Now().Add(r.pause)
	// NotFound is the normal end of a sandbox that has ended since the list.
	if gone := status.Code(err) == codes.NotFound; !gone && ctx.Err() == nil && r.logged != err.Error() {
		r.logged = err.Error()
		logr.FromContextOrDiscard(ctx).Error(err, "The network namespace of a sandbox is unknown, retrying",
			"pod", p.GetMetadata().GetNamespace()+"/"+p.GetMetadata().GetName(), "sandbox", p.GetId())
	}
}

// netNSOf requests the path of a sandbox's network namespace. The path is empty if the sandbox is on the host's network, which
// policies must never touch, or if its network is torn down.
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
