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
	statusInterval = 30 * time.Second      // at most between tries to resolve one sandbox
	statusLimit    = 10 * time.Second      // for one answer of the runtime
	statusSoon     = 50 * time.Millisecond // a question that takes longer gives its place to another one
	statusParallel = 16                    // questions about sandboxes that have not failed yet
	retryParallel  = 4                     // questions about sandboxes that have
)

// resolution is what is known about the network namespace of one sandbox. It belongs to the lock of the Sandboxes.
type resolution struct {
	created time.Time
	asking  bool
	done    bool
	netNS   string // empty when done: on the host's network, or closed
	again   time.Time
	pause   time.Duration // of the last failure; 0: none yet
	logged  string
}

// resolveAll asks for the network namespaces that are not known yet, each in the background. A sandbox that fails is tried
// again later, and questions about sandboxes that failed before wait for few places of their own. The runtime answers a
// question within milliseconds. If it does not, the question keeps waiting and gives its place up: many sandboxes whose status
// hangs do not delay the others.
func (s *Sandboxes) resolveAll(ctx context.Context, sandboxes []*runtimeapi.PodSandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range sandboxes {
		r := s.resolve[p.GetId()]
		if r == nil {
			r = &resolution{created: time.Unix(0, p.GetCreatedAt())}
			s.resolve[p.GetId()] = r
		}
		if r.done || r.asking || time.Now().Before(r.again) {
			continue
		}
		places := s.places
		if r.pause > 0 {
			places = s.retryPlaces
		}
		r.asking = true
		s.asking.Go(func() {
			select {
			case places <- struct{}{}:
				leave := sync.OnceFunc(func() { <-places })
				defer leave()
				defer time.AfterFunc(statusSoon, leave).Stop()
				s.resolveOne(ctx, p, r)
			case <-ctx.Done():
			}
		})
	}
}

func (s *Sandboxes) resolveOne(ctx context.Context, p *runtimeapi.PodSandbox, r *resolution) {
	answer, cancel := context.WithTimeout(ctx, statusLimit)
	netNS, err := s.netNSOf(answer, p.GetId())
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.asking = false
	if err == nil {
		r.done, r.netNS = true, netNS
		s.wake()
		return
	}
	r.pause = min(max(2*r.pause, pollSpacing), statusInterval)
	r.again = time.Now().Add(r.pause)
	if gone := status.Code(err) == codes.NotFound; !gone && ctx.Err() == nil && r.logged != err.Error() {
		r.logged = err.Error()
		logr.FromContextOrDiscard(ctx).Error(err, "The network namespace of a sandbox is unknown, retrying",
			"pod", p.GetMetadata().GetNamespace()+"/"+p.GetMetadata().GetName(), "sandbox", p.GetId())
	}
}

// netNSOf asks the runtime for the network namespace of a sandbox. It is empty for a sandbox on the host's network, which
// no policy may ever touch, and for a sandbox whose network is torn down.
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
