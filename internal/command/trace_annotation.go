package command

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// Traces of a node at a time that annotations can ask for, and how soon it is looked again for a pod's sandbox.
const (
	maxTraces        = 4
	traceSandboxPoll = 200 * time.Millisecond
)

// annotatedTraces run the traces that annotations of local pods ask for: the packets go to the log. Each ends by itself,
// after its duration, and starts again only when somebody writes another annotation, or the agent starts.
type annotatedTraces struct {
	ctx   context.Context // of all traces; with the logger
	node  string
	state *cache.Cache

	mu      sync.Mutex
	running sync.WaitGroup
	pods    map[cache.Key]*annotatedTrace
}

// annotatedTrace is what a pod's annotation asked for last.
type annotatedTrace struct {
	uid   types.UID
	text  string
	stop  context.CancelFunc
	ended bool
}

func newAnnotatedTraces(ctx context.Context, node string, state *cache.Cache) *annotatedTraces {
	return &annotatedTraces{ctx: ctx, node: node, state: state, pods: map[cache.Key]*annotatedTrace{}}
}

// Run returns when the context has ended, and the traces with it.
func (a *annotatedTraces) Run(ctx context.Context) {
	<-ctx.Done()
	a.mu.Lock()
	for key := range a.pods {
		a.drop(key)
	}
	a.mu.Unlock()
	a.running.Wait()
}

// observe takes a pod as it is now.
func (a *annotatedTraces) observe(pod *corev1.Pod) {
	text, wanted := pod.Annotations[informers.TraceAnnotation]
	key := cache.Key{Namespace: pod.Namespace, Name: pod.Name}
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.pods[key]
	if wanted && last != nil && last.uid == pod.UID && last.text == text {
		return
	}
	a.drop(key)
	if wanted && pod.Spec.NodeName == a.node && a.ctx.Err() == nil {
		a.start(pod, text)
	}
}

// drop ends the trace of a pod, if there is one.
func (a *annotatedTraces) drop(key cache.Key) {
	if last := a.pods[key]; last != nil {
		last.stop()
		delete(a.pods, key)
	}
}

func (a *annotatedTraces) start(pod *corev1.Pod, text string) {
	key := cache.Key{Namespace: pod.Namespace, Name: pod.Name}
	log := logr.FromContextOrDiscard(a.ctx).WithValues("pod", key.String())
	ctx, stop := context.WithCancel(a.ctx)
	t := &annotatedTrace{uid: pod.UID, text: text, stop: stop}
	a.pods[key] = t
	options, filter, err := parseTraceAnnotation(text)
	if n := a.active(); err == nil && n > maxTraces {
		err = fmt.Errorf("%d pods of this node are traced already", maxTraces)
	}
	if err != nil {
		t.ended = true
		stop()
		log.Error(err, "The annotation asks for a trace that cannot be", "annotation", informers.TraceAnnotation, "value", text)
		return
	}
	a.running.Go(func() {
		defer stop()
		if err := a.trace(ctx, log, key, options, filter); err != nil && ctx.Err() == nil {
			log.Error(err, "The trace that the annotation asks for failed")
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		t.ended = true
	})
}

// active counts the traces that have not ended.
func (a *annotatedTraces) active() int {
	n := 0
	for _, t := range a.pods {
		if !t.ended {
			n++
		}
	}
	return n
}

// trace waits for the pod's sandbox and traces it, both together for the duration at most.
func (a *annotatedTraces) trace(ctx context.Context, log logr.Logger, key cache.Key, o *traceOptions, filter engine.TraceFilter) error {
	until := time.Now().Add(o.duration)
	var path string
	for path == "" {
		if target, ok := a.state.Target(key); ok {
			path = target.Sandbox.NetNS
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(traceSandboxPoll):
		}
		if !time.Now().Before(until) {
			return fmt.Errorf("it is not known within %s where the pod runs", o.duration)
		}
	}
	o.duration = time.Until(until)
	log.Info("Tracing, as the pod's annotation asks for", "duration", o.duration.Round(time.Second), "limit", o.limit)
	defer log.Info("The trace has ended")
	return o.trace(ctx, key.String(), path, filter, func(p traceAnswer) error {
		log.Info("Packet", "packet", p.Packet.text(), "direction", p.Direction, "interface", p.Interface,
			"verdict", p.Verdict, "decidedBy", p.DecidedBy, "reason", p.Reason)
		return nil
	}, io.Discard)
}

// parseTraceAnnotation reads the flags of trace that say which packets, and how long.
func parseTraceAnnotation(text string) (*traceOptions, engine.TraceFilter, error) {
	var o traceOptions
	flags := pflag.NewFlagSet("trace", pflag.ContinueOnError)
	flags.Usage = func() {}
	o.addPacketFlags(flags)
	if err := flags.Parse(strings.Fields(text)); err != nil {
		return nil, engine.TraceFilter{}, err
	}
	if flags.NArg() > 0 {
		return nil, engine.TraceFilter{}, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	filter, err := o.filter()
	return &o, filter, err
}

// tracedSink tells of the pods that go into a sink.
type tracedSink struct {
	informers.Sink
	traces *annotatedTraces
}

// UpsertPod is the sink's.
func (s tracedSink) UpsertPod(pod *corev1.Pod) []cache.Problem {
	problems := s.Sink.UpsertPod(pod)
	s.traces.observe(pod)
	return problems
}

// DeletePod is the sink's.
func (s tracedSink) DeletePod(key cache.Key) {
	s.Sink.DeletePod(key)
	s.traces.mu.Lock()
	defer s.traces.mu.Unlock()
	s.traces.drop(key)
}
