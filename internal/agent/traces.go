package agent

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/budget"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
)

// Bounds of the traces that annotations ask for. Everybody who may edit a pod can write the annotation, so its limits are
// narrower than the limits of the command trace.
const (
	maxTraces          = 4 // of a node at a time
	maxNamespaceTraces = 2 // of a namespace at a time
	maxTraceDuration   = 5 * time.Minute
	maxTraceLimit      = 50 // packets a second
	traceSandboxPoll   = 200 * time.Millisecond
)

// Budgets of traces: a pod and a namespace get another trace only some time after several others, see package budget.
const (
	podTraces       = 5
	namespaceTraces = 10
	traceInterval   = time.Minute
)

// traces run the traces that annotations of local pods ask for: the packets go to the log. Each ends by itself, after its
// duration, and starts again only when somebody writes another annotation, or the agent starts.
type traces struct {
	ctx     context.Context // of all traces; with the logger
	state   *cache.Cache
	budget  *budget.Budget
	refused atomic.Uint64
	running sync.WaitGroup

	mu   sync.Mutex
	pods map[cache.Key]*podTrace
}

// podTrace is the last request of a pod.
type podTrace struct {
	pod   cache.PodID
	text  string
	stop  context.CancelFunc
	ended bool
}

func newTraces(ctx context.Context, state *cache.Cache) *traces {
	return &traces{
		ctx: ctx, state: state, budget: budget.New(podTraces, namespaceTraces, traceInterval), pods: map[cache.Key]*podTrace{},
	}
}

// Run returns when the context has ended, and the traces with it.
func (t *traces) Run(ctx context.Context) {
	<-ctx.Done()
	t.mu.Lock()
	for key := range t.pods {
		t.end(key)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// observe takes a local pod and its annotation, nil if the pod has none.
func (t *traces) observe(pod cache.PodID, text *string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.pods[pod.Key]
	if text != nil && last != nil && last.pod == pod && last.text == *text {
		return
	}
	t.end(pod.Key)
	if text != nil && t.ctx.Err() == nil {
		t.start(pod, *text)
	}
}

// drop ends the trace of a pod that is gone.
func (t *traces) drop(key cache.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(key)
}

// end ends the trace of a pod, if it runs.
func (t *traces) end(key cache.Key) {
	if last := t.pods[key]; last != nil {
		last.stop()
		delete(t.pods, key)
	}
}

func (t *traces) start(pod cache.PodID, text string) {
	log := logr.FromContextOrDiscard(t.ctx).WithValues("pod", pod.String())
	ctx, stop := context.WithCancel(t.ctx)
	request := &podTrace{pod: pod, text: text, stop: stop}
	t.pods[pod.Key] = request
	if !t.budget.Allow(pod.String(), pod.Namespace) { // one annotation after another must not fill the log
		t.refused.Add(1)
		request.ended = true
		stop()
		return
	}
	options, filter, err := parseTrace(text)
	if err == nil {
		err = t.hasRoom(pod)
	}
	if err != nil {
		t.refused.Add(1)
		request.ended = true
		stop()
		log.Error(err, "The annotation asks for a trace that cannot be", "annotation", informers.TraceAnnotation, "value", policy.Quote(text))
		return
	}
	t.running.Go(func() {
		defer stop()
		if err := t.follow(ctx, log, pod, options, filter); err != nil && ctx.Err() == nil {
			log.Error(err, "The trace that the annotation asks for failed")
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		request.ended = true
	})
}

// hasRoom is an error when other pods are traced already, as many as may be. The pod itself is among the requests.
func (t *traces) hasRoom(pod cache.PodID) error {
	node, namespace := 0, 0
	for _, r := range t.pods {
		if r.ended {
			continue
		}
		node++
		if r.pod.Namespace == pod.Namespace {
			namespace++
		}
	}
	switch {
	case namespace > maxNamespaceTraces:
		return fmt.Errorf("%d pods of this namespace are traced on this node already", maxNamespaceTraces)
	case node > maxTraces:
		return fmt.Errorf("%d pods of this node are traced already", maxTraces)
	}
	return nil
}

// follow waits for the pod's sandbox and traces the pod, both together for the duration at most.
func (t *traces) follow(ctx context.Context, log logr.Logger, pod cache.PodID, o *tracing.Options, filter trace.Filter) error {
	until := time.Now().Add(o.Duration)
	var path string
	for path == "" {
		if target, ok := t.state.Target(pod); ok {
			path = target.Sandbox.NetNS
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(traceSandboxPoll):
		}
		if !time.Now().Before(until) {
			return fmt.Errorf("it is not known within %s where the pod runs", o.Duration)
		}
	}
	o.Duration = time.Until(until)
	log.Info("Tracing, as the pod's annotation asks for", "duration", o.Duration.Round(time.Second), "limit", o.Limit)
	defer log.Info("The trace has ended")
	return o.Trace(ctx, pod.String(), path, filter, func(a tracing.Answer) error {
		log.Info("Packet", "packet", a.Packet.String(), "direction", a.Direction, "interface", a.Interface,
			"verdict", a.Verdict, "decidedBy", a.DecidedBy, "reason", a.Reason)
		return nil
	}, io.Discard)
}

// parseTrace reads the flags in an annotation.
func parseTrace(text string) (*tracing.Options, trace.Filter, error) {
	o, err := tracing.Parse(text)
	if err != nil {
		return nil, trace.Filter{}, err
	}
	filter, err := o.Filter()
	switch {
	case err != nil:
	case o.Duration > maxTraceDuration:
		err = fmt.Errorf("--duration %s: must be up to %s in an annotation", o.Duration, maxTraceDuration)
	case o.Limit > maxTraceLimit:
		err = fmt.Errorf("--limit %d: must be up to %d in an annotation", o.Limit, maxTraceLimit)
	}
	return o, filter, err
}
