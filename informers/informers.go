// Package informers is every input of the agent: shared informers for pods, namespaces, network attachment definitions
// and policies, and the source of sandboxes, which knows the network namespace of a pod. All of it goes into the cache.
//
// # Invariants
//
// Cheap handlers. A handler updates the cache, reports what is wrong with the object, tells that there may be work, and
// returns. It does no I/O.
//
// Nothing is lost. A source that cannot be reached changes nothing: what was known stays known, and it is tried again,
// with backoff and a log line a change of state, for as long as the agent runs.
//
// In sync means handled. HasSynced is true when the cache has everything that the first lists returned.
package informers

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// The kinds, as Events name them.
const (
	kindPod       = "Pod"
	kindNamespace = "Namespace"
	kindNAD       = "NetworkAttachmentDefinition"
	kindPolicy    = "MultiNetworkPolicy"
)

// Sink is where the objects go; *cache.Cache is one.
type Sink interface {
	UpsertPod(pod *corev1.Pod) []cache.Problem
	DeletePod(key cache.Key)
	UpsertNamespace(ns *corev1.Namespace)
	DeleteNamespace(name string)
	UpsertNAD(nad *netv1.NetworkAttachmentDefinition) []cache.Problem
	DeleteNAD(key cache.Key)
	UpsertPolicy(policy *mnpv1.MultiNetworkPolicy) []cache.Problem
	DeletePolicy(key cache.Key)
}

// Config is what Informers are made of. Source, Sink and Notify are needed.
type Config struct {
	Source   Source
	Sink     Sink
	Node     string                       // pods on this node are local
	Notify   func()                       // called after every change of the sink; must not block
	Reporter *Reporter                    // told the problems of objects
	LocalPod func(uid types.UID)          // called after every event of a local pod that is not gone
	Outage   func(kind string, down bool) // told when watching a kind is lost, and when it works again; may be nil
}

// Informers feed the objects of a Source to a Sink.
type Informers struct {
	config    Config
	log       logr.Logger
	informers []toolscache.SharedIndexInformer
	handled   []toolscache.ResourceEventHandlerRegistration
	running   sync.WaitGroup
}

// New makes informers that do nothing until Start. The context carries the logger.
func New(ctx context.Context, config Config) (*Informers, error) {
	if config.Reporter == nil {
		config.Reporter = NewReporter(nil)
	}
	if config.LocalPod == nil {
		config.LocalPod = func(types.UID) {}
	}
	in := &Informers{config: config, log: logr.FromContextOrDiscard(ctx)}
	sink := config.Sink
	return in, errors.Join(
		add(ctx, in, config.Source.Namespaces, kind[*corev1.Namespace]{
			apiVersion: corev1.SchemeGroupVersion.String(), name: kindNamespace, example: &corev1.Namespace{},
			upsert: func(ns *corev1.Namespace) []cache.Problem { sink.UpsertNamespace(ns); return nil },
			remove: func(key cache.Key) { sink.DeleteNamespace(key.Name) },
		}),
		add(ctx, in, config.Source.NADs, kind[*netv1.NetworkAttachmentDefinition]{
			apiVersion: netv1.SchemeGroupVersion.String(), name: kindNAD, example: &netv1.NetworkAttachmentDefinition{},
			upsert: sink.UpsertNAD, remove: sink.DeleteNAD,
		}),
		add(ctx, in, config.Source.Policies, kind[*mnpv1.MultiNetworkPolicy]{
			apiVersion: mnpv1.SchemeGroupVersion.String(), name: kindPolicy, example: &mnpv1.MultiNetworkPolicy{},
			upsert: sink.UpsertPolicy, remove: sink.DeletePolicy,
		}),
		add(ctx, in, config.Source.Pods, kind[*corev1.Pod]{
			apiVersion: corev1.SchemeGroupVersion.String(), name: kindPod, example: &corev1.Pod{},
			upsert: in.upsertPod, remove: sink.DeletePod,
		}),
	)
}

// upsertPod says nothing of problems of pods on other nodes: the agents there do.
func (in *Informers) upsertPod(pod *corev1.Pod) []cache.Problem {
	problems := in.config.Sink.UpsertPod(pod)
	if pod.Spec.NodeName != in.config.Node {
		return nil
	}
	in.config.LocalPod(pod.UID)
	return problems
}

// kind is how objects of one kind go into the sink.
type kind[T object] struct {
	apiVersion string
	name       string
	example    T
	upsert     func(T) []cache.Problem
	remove     func(cache.Key)
}

// add makes the informer of one kind.
func add[T object](ctx context.Context, in *Informers, lw toolscache.ListerWatcher, k kind[T]) error {
	log := in.log.WithValues("kind", k.name)
	out := newOutage(log, "Watching the API server")
	if tell := in.config.Outage; tell != nil {
		out.told = func(down bool) { tell(k.name, down) }
	}
	informer := toolscache.NewSharedIndexInformer(observe(lw, out), runtime.Object(k.example), 0, toolscache.Indexers{})
	if err := informer.SetTransform(trimFor(in.config.Node)); err != nil {
		return fmt.Errorf("informer of %s: %w", k.name, err)
	}
	// What fails to start has been observed; what comes here beside it is a stream that broke.
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
		log.V(2).Info("A watch has ended and starts again", "cause", err.Error())
	})
	if err != nil {
		return fmt.Errorf("informer of %s: %w", k.name, err)
	}
	registration, err := informer.AddEventHandler(handler(ctx, in, k))
	if err != nil {
		return fmt.Errorf("informer of %s: %w", k.name, err)
	}
	in.informers = append(in.informers, informer)
	in.handled = append(in.handled, registration)
	return nil
}

func handler[T object](ctx context.Context, in *Informers, k kind[T]) toolscache.ResourceEventHandler {
	subject := func(o T) Subject {
		return Subject{APIVersion: k.apiVersion, Kind: k.name, NamespacedName: keyOf(o), UID: o.GetUID()}
	}
	upsert := func(obj any) {
		o, ok := obj.(T)
		if !ok {
			in.log.Error(nil, "An informer gave an object of another kind", "kind", k.name, "got", fmt.Sprintf("%T", obj))
			return
		}
		in.config.Reporter.Report(ctx, subject(o), k.upsert(o))
		in.config.Notify()
	}
	remove := func(obj any) {
		// After a lost watch, all that is known may be the last state, or just the key.
		key, err := toolscache.DeletionHandlingObjectToName(obj)
		if err != nil {
			in.log.Error(err, "An informer gave an object without a name", "kind", k.name)
			return
		}
		name := types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
		k.remove(name)
		in.config.Reporter.Forget(Subject{Kind: k.name, NamespacedName: name})
		in.config.Notify()
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    upsert,
		UpdateFunc: func(_, obj any) { upsert(obj) },
		DeleteFunc: remove,
	}
}

// Start runs the informers until the context ends. It returns at once; Wait waits for their end.
func (in *Informers) Start(ctx context.Context) {
	for _, i := range in.informers {
		in.running.Go(func() { i.RunWithContext(ctx) })
	}
}

// Wait returns when the informers have stopped.
func (in *Informers) Wait() { in.running.Wait() }

// HasSynced says whether all that was there at the start is in the sink.
func (in *Informers) HasSynced() bool {
	for _, h := range in.handled {
		if !h.HasSynced() {
			return false
		}
	}
	return true
}
