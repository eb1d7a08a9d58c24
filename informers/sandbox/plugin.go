package sandbox

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// HookResult is the answer of the hook for a pod that starts.
type HookResult string

// The results.
const (
	HookEnforced    HookResult = "enforced"     // the pod's rules are in force
	HookUnselected  HookResult = "unselected"   // no policy selects the pod, or it is a static pod
	HookHostNetwork HookResult = "host_network" // the pod is on the host's network, which policies never touch
	HookRefused     HookResult = "refused"      // the pod's rules could not be enforced, so it does not start
)

// HookResults lists all results.
var HookResults = []HookResult{HookEnforced, HookUnselected, HookHostNetwork, HookRefused}

const (
	hookRetry   = 50 * time.Millisecond  // the first pause between tries for a pod that fails; doubles
	answerGrace = 300 * time.Millisecond // time for the answer of a hook to reach the runtime
)

// The kubelet notes in an annotation from which source it got a pod: the API server, a file or a URL.
const (
	configSourceAnnotation = "kubernetes.io/config.source"
	configSourceAPI        = "api"
)

// foreignLabels are prefixes of the labels that kubelet and runtime add to a sandbox. The pod does not have these labels.
var foreignLabels = []string{"io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid", "io.cri-containerd."}

// plugin is the plugin's side of a connection to the runtime. The NRI library calls its exported methods.
type plugin struct {
	*NRI
	log       logr.Logger
	stub      stub.Stub
	abandoned atomic.Bool   // the registration timed out
	accepted  chan struct{} // closed after the first Synchronize: the runtime has accepted the plugin
	lost      chan struct{} // closed when the connection ends
}

// start registers the plugin, and returns when the runtime has configured it. The library itself has no timeout for this. After a
// timeout, start ends the library's wait by a call of Configure that fails, so that no goroutine stays behind.
func (p *plugin) start(ctx context.Context, conn net.Conn) error {
	// The channel has room for the result, so that the goroutine ends even if start has returned.
	started := make(chan error, 1)
	// The end of the context must not cancel running hooks: serve waits for them.
	go func() { started <- p.stub.Start(context.WithoutCancel(ctx)) }()
	select {
	case err := <-started:
		if err != nil {
			conn.Close() //nolint:errcheck // the first error is returned
		}
		return err
	case <-ctx.Done():
		conn.Close() //nolint:errcheck // as above
		return ctx.Err()
	case <-time.After(p.registerLimit):
	}
	// From here on, Configure fails, whoever calls it.
	p.abandoned.Store(true)
	conn.Close() //nolint:errcheck // as above
	// The interface of the library has no Configure; its implementation has, as the server of the runtime's calls.
	if s, ok := p.stub.(interface {
		Configure(ctx context.Context, req *api.ConfigureRequest) (*api.ConfigureResponse, error)
	}); ok {
		go s.Configure(ctx, &api.ConfigureRequest{}) //nolint:errcheck // it fails, see above
	}
	return errRejected
}

// serve returns when the connection or the context ends. At the end of the context it waits up to hookEnd for running hooks.
func (p *plugin) serve(ctx context.Context) error {
	defer p.stub.Stop()
	// First the runtime must synchronize: until then it may still refuse the plugin.
	select {
	case <-p.accepted:
	case <-p.lost:
		return errHungUp
	case <-time.After(p.registerLimit):
		return errRejected
	case <-ctx.Done():
		return nil
	}
	p.worked = true
	select {
	case <-p.lost:
	case <-ctx.Done():
		ended := make(chan struct{})
		go func() { p.hooks.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(hookEnd):
		}
	}
	return nil
}

// Configure implements the NRI plugin interface: the runtime accepts the registration.
func (p *plugin) Configure(context.Context, string, string, string) (api.EventMask, error) {
	if p.abandoned.Load() {
		return 0, errRejected
	}
	return 0, nil // subscribes to all events for which the plugin has methods
}

// Synchronize implements the NRI plugin interface. The runtime passes all its sandboxes, including ended sandboxes. Pods that
// started before get their rules like without NRI.
func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, _ []*api.Container) ([]*api.ContainerUpdate, error) {
	for _, pod := range pods {
		info, ok := networkOf(pod)
		if !ok {
			continue
		}
		if path, err := openableNetNS(p.config.HostPrefix, info); err == nil {
			p.config.Sandboxes.Seen(types.UID(pod.GetUid()), newSandbox(pod, path))
		}
	}
	// An empty UID is never known, so the next lists of CRI follow soon.
	p.config.Sandboxes.Poke("")
	select {
	case <-p.accepted:
	default:
		p.outage.Works()
		p.connected.Store(true)
		p.config.Observer.NRIState(NRIConnected)
		p.log.Info("NRI connected: the container runtime asks before a pod starts", "sandboxes", len(pods))
		close(p.accepted)
	}
	return nil, nil
}

// RunPodSandbox implements the NRI plugin interface. At this point the pod's network is ready, and no process of the pod runs
// except the process that holds the sandbox. If it returns an error, the runtime removes the sandbox, and the kubelet retries.
//
// It always answers before the runtime's timeout, even if the agent is too busy: a runtime may start a pod without an answer. It
// gives enforce half of the timeout, and answers after three quarters if enforce still hangs.
func (p *plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	start := time.Now()
	p.hooks.Add(1)
	// The hook counts as running for a moment after its return, until the library has sent the answer.
	defer time.AfterFunc(answerGrace, p.hooks.Done)
	// The timeout that the runtime gave at the registration.
	patience := p.stub.RequestTimeout()
	if patience <= 0 {
		patience = stub.DefaultRequestTimeout
	}
	// The channel has room for the answer, so that enforce ends even if nobody waits for it.
	answer := make(chan outcome, 1)
	p.hooks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, patience/2)
		defer cancel()
		answer <- p.enforce(ctx, pod)
	})
	// The answer if neither case below replaces it.
	o := outcome{result: HookRefused, err: errLate}
	select {
	case o = <-answer:
	case <-time.After(patience * 3 / 4):
	}
	p.config.Observer.Hooked(o.result, time.Since(start))
	if o.result != HookRefused {
		return nil
	}
	p.hooks.Go(func() { // in the background, since the lock of the cache may be held
		p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
		if errors.Is(o.err, errLate) {
			<-answer // enforce may have announced the pod until now
			p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
		}
	})
	return p.refuse(pod, o.err)
}

// outcome is the answer of a hook, with the reason for a refusal. err is nil unless the result is HookRefused.
type outcome struct {
	result HookResult
	err    error
}

// errLate is the reason if enforce has not returned in time.
var errLate = errors.New("the rules are not in force in time")

// refuse logs a refused pod, queues an Event for it, and returns the error for the runtime.
// The kubelet shows the error in an Event of its own, with the name of the plugin in front.
func (p *plugin) refuse(pod *api.PodSandbox, err error) error {
	p.log.Error(err, "Pod refused: its policies cannot be enforced; the kubelet retries",
		"pod", pod.GetNamespace()+"/"+pod.GetName(), "sandbox", pod.GetId())
	why := "policies cannot be enforced: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	if p.config.Events != nil {
		about := informers.Subject{APIVersion: corev1.SchemeGroupVersion.String(), Kind: informers.KindPod, UID: types.UID(pod.GetUid())}
		about.Namespace, about.Name = pod.GetNamespace(), pod.GetName()
		p.config.Events.Warn(about, policy.PolicyNotEnforced, "The pod does not start: "+why)
	}
	return errors.New(pluginName + ": " + why)
}

// enforce announces the pod and applies its rules. It retries until they are in force or the context ends.
func (p *plugin) enforce(ctx context.Context, pod *api.PodSandbox) outcome {
	info, ok := networkOf(pod)
	if !ok {
		return outcome{result: HookHostNetwork}
	}
	id := cache.PodID{Key: keyOf(pod), UID: types.UID(pod.GetUid())}
	path, errPath := openableNetNS(p.config.HostPrefix, info)
	if errPath == nil {
		// Hooked marks a sandbox whose pod has no process yet, so its first tables may be small ones.
		sandbox := newSandbox(pod, path)
		sandbox.Hooked = true
		p.config.Sandboxes.Started(id.UID, sandbox)
	}
	// A static pod may be the API server itself, so it must not wait for inputs from the API server. It gets its rules when its
	// mirror pod is known.
	if source := pod.GetAnnotations()[configSourceAnnotation]; source != "" && source != configSourceAPI {
		return outcome{result: HookUnselected}
	}
	// Enforce fails for transient reasons, such as a sandbox whose path cannot be opened yet. The pod is announced for
	// each try, since an event of the API server may have replaced it meanwhile.
	for pause := hookRetry; ; pause *= 2 {
		p.config.Announce(p.podOf(pod))
		enforced, err := p.config.Enforce(ctx, id)
		switch {
		case err == nil && enforced:
			return outcome{result: HookEnforced}
		case err == nil:
			return outcome{result: HookUnselected}
		}
		err = errors.Join(err, errPath)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return outcome{HookRefused, err}
		}
	}
}

// newSandbox returns the sandbox of a pod with the path of its network namespace.
func newSandbox(pod *api.PodSandbox, netNS string) cache.Sandbox {
	return cache.Sandbox{ID: pod.GetId(), Pod: keyOf(pod), NetNS: netNS, Handler: pod.GetRuntimeHandler()}
}

// podOf returns the pod of a sandbox, with the labels and annotations that the runtime knows.
func (p *plugin) podOf(pod *api.PodSandbox) cache.Pod {
	labels := map[string]string{}
	for key, value := range pod.GetLabels() {
		if !slices.ContainsFunc(foreignLabels, func(p string) bool { return strings.HasPrefix(key, p) }) {
			labels[key] = value
		}
	}
	// The runtime knows no phase. Pending is the phase of a pod that starts.
	return cache.NewPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.GetNamespace(), Name: pod.GetName(), UID: types.UID(pod.GetUid()),
			Labels: labels, Annotations: pod.GetAnnotations(),
		},
		Spec:   corev1.PodSpec{NodeName: p.config.Node},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}, p.config.Node, p.config.Settings.Limits)
}

// StopPodSandbox implements the NRI plugin interface: all processes in the sandbox have ended.
func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
	return nil
}

// RemovePodSandbox implements the NRI plugin interface: the sandbox is gone.
func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
	return nil
}

// networkOf returns the location of a sandbox's network namespace. It returns false if the sandbox is on the host's network, or
// if its network is torn down.
func networkOf(pod *api.PodSandbox) (sandboxInfo, bool) {
	for _, ns := range pod.GetLinux().GetNamespaces() {
		if ns.GetType() == "network" {
			info := sandboxInfo{netNS: ns.GetPath(), pid: int(pod.GetPid())}
			return info, info != sandboxInfo{}
		}
	}
	return sandboxInfo{}, false
}
