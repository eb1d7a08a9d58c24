package informers

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/outage"
)

// Observer is notified of events, for metrics, health and traces. Its methods must not block. Informers call them from several
// goroutines, one for each kind.
type Observer interface {
	// Received and Taken are called for each version of an object that can be decoded, with the same Receipt.
	Received(Receipt)                // the object is about to be given to the sink
	Taken(Receipt)                   // the sink has the object
	Gone(kind string, key cache.Key) // the object was removed from the sink
	Outage(source string, down bool) // the watch of a kind failed, or works again
}

// Receipt identifies a version of an object, for an Observer.
type Receipt struct {
	Kind    string
	Key     cache.Key
	UID     types.UID
	Version string    // resource version
	Changed time.Time // time of the last change by a client of the API; zero: unknown
	// The other kinds are never local and have no trace.
	IsLocal bool    // a pod of this node
	Trace   *string // TraceAnnotation of a local pod; nil: absent
}

// Unobserved is an Observer that ignores everything.
type Unobserved struct{}

// Received implements Observer.
func (Unobserved) Received(Receipt) {}

// Taken implements Observer.
func (Unobserved) Taken(Receipt) {}

// Gone implements Observer.
func (Unobserved) Gone(string, cache.Key) {}

// Outage implements Observer.
func (Unobserved) Outage(string, bool) {}

// Config configures Informers. Source, Sink, Settings and Notify are required.
type Config struct {
	Source   Source
	Sink     Sink
	Settings Settings
	Notify   func()    // called after changes of the sink; must not block
	Reporter *Reporter // receives the problems of objects; nil: they are logged only
	Observer Observer  // nil: no observer

	// Silence is the time without an event or a bookmark after which a watch of the API server is restarted. Zero: three
	// minutes.
	Silence time.Duration
}

// Informers give the objects of a Source to a Sink, with a reflector for each kind. Call Start once, and Wait after the
// end of its context. HasSynced may be called at any time.
type Informers struct {
	config Config
	log    logr.Logger
	// reflectors and feeds have an element for each kind, in the same order.
	reflectors []*toolscache.Reflector
	feeds      []*feed
	running    sync.WaitGroup
	// refetches has a buffer of 1 and wakes runRefetches.
	refetches chan struct{}
}

// New returns informers that do nothing until Start. The context carries the logger; its end has no effect.
func New(ctx context.Context, config Config) *Informers {
	if config.Reporter == nil {
		config.Reporter = NewReporter(nil)
	}
	if config.Observer == nil {
		config.Observer = Unobserved{}
	}
	if config.Silence == 0 {
		config.Silence = silenceLimit
	}
	in := &Informers{config: config, log: logr.FromContextOrDiscard(ctx), refetches: make(chan struct{}, 1)}
	in.add(ctx, config.Source.namespaces, kinds.namespace)
	in.add(ctx, config.Source.nads, kinds.nad)
	in.add(ctx, config.Source.policies, kinds.policy)
	in.add(ctx, config.Source.pods, kinds.pod)
	return in
}

// add makes the reflector and the feed of a kind.
func (in *Informers) add(ctx context.Context, lw toolscache.ListerWatcher, k kind) {
	// Each kind has an outage of its own, since a watch can fail alone.
	out := outage.New(in.log.WithValues("kind", k.name), "Watching the API server",
		func(down bool) { in.config.Observer.Outage(k.name, down) })
	silence := in.config.Silence
	if !in.config.Source.remote {
		silence = forever // the source sends no bookmarks
	}
	f := &feed{ctx: ctx, in: in, kind: k}
	observed := observe(lw, out, silence)
	observed.initial = f.takeInitial
	quiet := logr.Discard() // a reflector logs every failure, the outage only the first
	in.reflectors = append(in.reflectors, toolscache.NewReflectorWithOptions(observed, &record{}, f,
		toolscache.ReflectorOptions{Name: k.name, Logger: &quiet}))
	in.feeds = append(in.feeds, f)
}

// Start runs the informers until the context ends. It returns at once; Wait waits for their end.
func (in *Informers) Start(ctx context.Context) {
	quiet := klog.NewContext(ctx, logr.Discard())
	for _, r := range in.reflectors {
		in.running.Go(func() { r.RunWithContext(quiet) })
	}
	in.running.Go(func() { in.runRefetches(ctx) })
}

// Wait returns when the informers have stopped.
func (in *Informers) Wait() { in.running.Wait() }

// HasSynced reports whether the sink has all objects of the first lists. The sandboxes of the runtime are not a part of
// it; package sandbox has a HasSynced of its own.
func (in *Informers) HasSynced() bool {
	for _, f := range in.feeds {
		if !f.synced.Load() {
			return false
		}
	}
	return true
}

// refetchPause is the pause between two reads of policies, and the first pause after a failed read.
const refetchPause = 50 * time.Millisecond

// wakeRefetch makes runRefetches ask the sink for policies to read. It does not block.
func (in *Informers) wakeRefetch() {
	select {
	case in.refetches <- struct{}{}:
	default:
	}
}

// runRefetches reads the policies that the sink asks for, until the context ends. The cache drops the rules of a policy when its
// namespace exceeds a limit, and asks for the policy when there is room again.
func (in *Informers) runRefetches(ctx context.Context) {
	for {
		select {
		case <-in.refetches:
		case <-ctx.Done():
			return
		}
		for _, key := range in.config.Sink.TakeRefetch() {
			in.refetch(ctx, key)
		}
	}
}

// refetch reads a policy again, and retries until a read succeeds. The sink ignores a version other than the version that it
// knows, since the watch brings newer versions.
func (in *Informers) refetch(ctx context.Context, key cache.Key) {
	// The pause after a success keeps many reads in a row from loading the API server.
	for pause := refetchPause; ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
		limited, cancel := context.WithTimeout(ctx, answerLimit)
		r, err := in.config.Source.getPolicy(limited, key)
		cancel()
		if err == nil && r != nil && r.policy != nil {
			in.config.Sink.RestorePolicy(r.policy)
			in.config.Notify()
		}
		// Only the first failure of a policy is logged, since the tries go on.
		if err != nil && ctx.Err() == nil && pause == refetchPause {
			in.log.Error(err, "Reading a policy again failed, retrying", "policy", key.String())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		if err == nil {
			return
		}
	}
}

// undecodable returns the problem of an object that cannot be decoded.
func undecodable(cause string) []policy.Problem {
	var ps policy.Problems
	ps.Add("metadata", "the object cannot be decoded, so what is in force stays: %s", policy.Quote(cause))
	return ps.List()
}
