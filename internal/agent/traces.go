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
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/terminal"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/tracing"
)

// Bounds of the traces that annotations ask for. Everybody who may edit a pod can write the annotation, so its limits are
// narrower than the limits of the command trace.
const (
	maxTraces          = 4 // of a node at a time
	maxNamespaceTraces = 2 // of a namespace at a time
	maxTraceDuration   = 5 * time.Minute
	maxTraceLimit      = 50 // packets a second
	// traceSandboxPoll is the pause between two questions for the sandbox of a pod.
	traceSandboxPoll = 200 * time.Millisecond
)

// Budgets of traces: a pod and a namespace that have used theirs get another trace only after some time, see package
// budget.
const (
	podTraces       = 5
	namespaceTraces = 10
	traceInterval   = time.Minute
)

// traces runs the traces that annotations of local pods ask for, and logs the packets. Each trace ends after its
// duration. It starts again only if the annotation changes, or the agent starts.
type traces struct {
	ctx     context.Context // parent of all traces; carries the logger
	state   *cache.Cache
	budget  *budget.Budget
	refused atomic.Uint64 // requests that were refused: invalid, over budget, or beyond the bounds
	running sync.WaitGroup

	// mu guards pods and the requests in it.
	mu   sync.Mutex
	pods map[cache.Key]*podTrace
}

// podTrace is the last request of a pod. It stays after its end, so that the same annotation does not start it again.
type podTrace struct {
	pod   cache.PodID
	text  string             // the annotation
	stop  context.CancelFunc // ends the trace
	ended bool               // the trace has ended, or was refused
}

// newTraces returns traces that run in the context.
func newTraces(ctx context.Context, state *cache.Cache) *traces {
	return &traces{
		ctx: ctx, state: state, budget: budget.New(podTraces, namespaceTraces, traceInterval), pods: map[cache.Key]*podTrace{},
	}
}

// Run returns when the context has ended and all traces with it.
func (t *traces) Run(ctx context.Context) {
	<-ctx.Done()
	t.mu.Lock()
	for key := range t.pods {
		t.end(key)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// observe takes a local pod and its annotation; nil means that the pod has none. An unchanged annotation changes
// nothing.
func (t *traces) observe(pod cache.PodID, text *string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A watch reports a pod for every change, and most changes are not of the annotation.
	last := t.pods[pod.Key]
	if text != nil && last != nil && last.pod == pod && last.text == *text {
		return
	}
	// Another annotation, or another pod with the same name, ends the trace.
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

// end ends the trace of a pod, if it has a request. The caller holds the lock.
func (t *traces) end(key cache.Key) {
	if last := t.pods[key]; last != nil {
		last.stop()
		delete(t.pods, key)
	}
}

// start notes the request of a pod and runs its trace in the background. A refused request is noted too, so that it is
// logged once. The caller holds the lock.
func (t *traces) start(pod cache.PodID, text string) {
	log := logr.FromContextOrDiscard(t.ctx).WithValues("pod", pod.String())
	ctx, stop := context.WithCancel(t.ctx)
	request := &podTrace{pod: pod, text: text, stop: stop}
	t.pods[pod.Key] = request
	// Before the annotation is parsed, because each refused text costs a log line.
	if !t.budget.Allow(pod.String(), pod.Namespace) {
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
		// stop frees the context; a trace that has ended by itself needs it too.
		defer stop()
		if err := t.follow(ctx, log, pod, options, filter); err != nil && ctx.Err() == nil {
			log.Error(err, "The trace that the annotation asks for failed")
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		request.ended = true
	})
}

// hasRoom returns an error if too many pods are traced already. The pod itself is among the requests, hence ">".
// It counts the traces that have not ended.
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

// follow waits for the pod's sandbox and traces the pod. Both together take no longer than the duration.
func (t *traces) follow(ctx context.Context, log logr.Logger, pod cache.PodID, o *tracing.Options, filter trace.Filter) error {
	// The duration limits the wait, too: a pod that never starts must not keep a place among the traces.
	until := time.Now().Add(o.Duration)
	path, err := t.sandboxOf(ctx, pod, until)
	if err != nil {
		return err
	}
	o.Duration = time.Until(until)
	log.Info("Tracing, as the pod's annotation asks for", "duration", o.Duration.Round(time.Second), "limit", o.Limit)
	defer log.Info("The trace has ended")
	return o.Trace(ctx, pod.String(), path, filter, func(a tracing.Answer) error {
		// klog prints a value of several lines as it is, and names of tables and chains of the pod may hold anything.
		log.Info("Packet", "packet", a.Packet.String(), "direction", a.Direction, "interface", terminal.Line(a.Interface),
			"verdict", a.Verdict, "decidedBy", terminal.Line(a.DecidedBy), "reason", terminal.Line(a.Reason))
		return nil
	}, io.Discard)
}

// sandboxOf waits for the pod's sandbox, and returns the path of its network namespace.
func (t *traces) sandboxOf(ctx context.Context, pod cache.PodID, until time.Time) (path string, err error) {
	begin := time.Now()
	for {
		if target, ok := t.state.Target(pod); ok && target.Sandbox.NetNS != "" {
			return target.Sandbox.NetNS, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(traceSandboxPoll):
		}
		if !time.Now().Before(until) {
			return "", fmt.Errorf("it is not known within %s where the pod runs", until.Sub(begin).Round(time.Second))
		}
	}
}

// parseTrace reads the annotation: flags of the command trace, within the bounds for annotations.
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
