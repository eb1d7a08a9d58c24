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
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// HookResult is what became of a pod that starts.
type HookResult string

// The results.
const (
	HookEnforced    HookResult = "enforced"     // its rules were in force before its first process
	HookUnselected  HookResult = "unselected"   // it has none
	HookHostNetwork HookResult = "host_network" // no policy may touch it
	HookRefused     HookResult = "refused"      // its rules could not be put in force, and it does not start
)

// HookResults are all there are.
var HookResults = []HookResult{HookEnforced, HookUnselected, HookHostNetwork, HookRefused}

// reasonRefused is the word of the Event about a pod that is refused.
const reasonRefused = "PolicyNotEnforced"

const (
	hookRetry   = 50 * time.Millisecond  // the first pause between tries for a pod that fails; doubles
	answerGrace = 300 * time.Millisecond // for the answer of a hook to reach the runtime
)

// Where the kubelet says how it came to know a pod.
const (
	configSourceAnnotation = "kubernetes.io/config.source"
	configSourceAPI        = "api"
)

// foreignLabels begin the labels that a sandbox has and its pod does not.
var foreignLabels = []string{"io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid", "io.cri-containerd."}

// plugin is one connection to the runtime. The runtime calls its methods.
type plugin struct {
	*NRI
	log      logr.Logger
	stub     stub.Stub
	given    atomic.Bool   // nobody waits for the runtime any more
	accepted chan struct{} // closed once the runtime has told of all its sandboxes
	lost     chan struct{} // closed with the connection
}

// start returns when the runtime has configured the plugin. The library waits for that without an end.
func (p *plugin) start(ctx context.Context, conn net.Conn) error {
	started := make(chan error, 1)
	// The end of the context does not cut a pod off that is worked on: serve waits for that.
	go func() { started <- p.stub.Start(context.WithoutCancel(ctx)) }()
	select {
	case err := <-started:
		if err != nil {
			conn.Close() //nolint:errcheck // what is wrong with it is told
		}
		return err
	case <-ctx.Done():
		conn.Close() //nolint:errcheck // as above
		return ctx.Err()
	case <-time.After(p.registerLimit):
	}
	p.given.Store(true)
	conn.Close() //nolint:errcheck // as above
	if s, ok := p.stub.(interface {
		Configure(ctx context.Context, req *api.ConfigureRequest) (*api.ConfigureResponse, error)
	}); ok {
		go s.Configure(ctx, &api.ConfigureRequest{}) //nolint:errcheck // it fails, as it must
	}
	return errRejected
}

// serve returns when the connection or the context ends. It lets the hooks under way finish, for a while.
func (p *plugin) serve(ctx context.Context) error {
	defer p.stub.Stop()
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

// Configure is NRI's: the runtime takes the plugin.
func (p *plugin) Configure(context.Context, string, string, string) (api.EventMask, error) {
	if p.given.Load() {
		return 0, errRejected
	}
	return 0, nil // all events that there are methods for
}

// Synchronize is NRI's: the runtime tells of all its sandboxes, those that have ended too. What has started while nobody
// asked this plugin gets its rules as if there were no NRI.
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
	p.config.Sandboxes.Poke("")
	select {
	case <-p.accepted:
	default:
		p.outage.Works()
		p.config.Observer.NRIState(NRIConnected)
		p.log.Info("NRI connected: the container runtime asks before a pod starts", "sandboxes", len(pods))
		close(p.accepted)
	}
	return nil, nil
}

// RunPodSandbox is NRI's: a pod's network is there, and no process in it yet but the one that holds the sandbox. An error
// makes the runtime undo the sandbox; the kubelet tries again. The answer always comes before the runtime gives up waiting,
// however busy the agent is: a runtime may start a pod whose plugin is silent.
func (p *plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	start := time.Now()
	p.hooks.Add(1)
	defer time.AfterFunc(answerGrace, p.hooks.Done)
	patience := p.stub.RequestTimeout()
	if patience <= 0 {
		patience = stub.DefaultRequestTimeout
	}
	answer := make(chan outcome, 1)
	p.hooks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, patience/2)
		defer cancel()
		answer <- p.enforce(ctx, pod)
	})
	o := outcome{result: HookRefused, err: errLate}
	select {
	case o = <-answer:
	case <-time.After(patience * 3 / 4):
	}
	p.config.Observer.Hooked(o.result, time.Since(start))
	if o.result != HookRefused {
		return nil
	}
	p.hooks.Go(func() { // a lock may be held
		p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
		if errors.Is(o.err, errLate) {
			<-answer // until now the pod may have been announced
			p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
		}
	})
	return p.refuse(pod, o.err)
}

// outcome is the answer of a hook. The error says why a pod is refused.
type outcome struct {
	result HookResult
	err    error
}

var errLate = errors.New("the rules are not in force in time")

// refuse reports a pod that does not start, and returns the error for the runtime.
func (p *plugin) refuse(pod *api.PodSandbox, err error) error {
	p.log.Error(err, "Pod refused: its policies cannot be enforced; the kubelet retries",
		"pod", pod.GetNamespace()+"/"+pod.GetName(), "sandbox", pod.GetId())
	why := "policies cannot be enforced: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	if p.config.Events != nil {
		about := informers.Subject{APIVersion: corev1.SchemeGroupVersion.String(), Kind: informers.KindPod, UID: types.UID(pod.GetUid())}
		about.Namespace, about.Name = pod.GetNamespace(), pod.GetName()
		p.config.Events.Warn(about, reasonRefused, "The pod does not start: "+why)
	}
	return errors.New(pluginName + ": " + why)
}

// enforce has the rules of a pod that starts in force before it returns.
func (p *plugin) enforce(ctx context.Context, pod *api.PodSandbox) outcome {
	info, ok := networkOf(pod)
	if !ok {
		return outcome{result: HookHostNetwork}
	}
	id := cache.PodID{Key: keyOf(pod), UID: types.UID(pod.GetUid())}
	path, errPath := openableNetNS(p.config.HostPrefix, info)
	if errPath == nil {
		p.config.Sandboxes.Started(id.UID, newSandbox(pod, path))
	}
	// A pod from a file of the kubelet may be the API server, so it waits for nothing that comes from there. It gets its
	// rules when its mirror pod is known.
	if source := pod.GetAnnotations()[configSourceAnnotation]; source != "" && source != configSourceAPI {
		return outcome{result: HookUnselected}
	}
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

func newSandbox(pod *api.PodSandbox, netNS string) cache.Sandbox {
	return cache.Sandbox{ID: pod.GetId(), Pod: keyOf(pod), NetNS: netNS, Handler: pod.GetRuntimeHandler()}
}

// podOf is the pod that a sandbox belongs to, as far as the runtime knows the pod.
func (p *plugin) podOf(pod *api.PodSandbox) cache.Pod {
	labels := map[string]string{}
	for key, value := range pod.GetLabels() {
		if !slices.ContainsFunc(foreignLabels, func(p string) bool { return strings.HasPrefix(key, p) }) {
			labels[key] = value
		}
	}
	return cache.NewPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.GetNamespace(), Name: pod.GetName(), UID: types.UID(pod.GetUid()),
			Labels: labels, Annotations: pod.GetAnnotations(),
		},
		Spec:   corev1.PodSpec{NodeName: p.config.Node},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}, p.config.Node, p.config.Settings.Limits)
}

// StopPodSandbox is NRI's: nothing runs in the sandbox any more.
func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
	return nil
}

// RemovePodSandbox is NRI's: the sandbox is gone.
func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.config.Sandboxes.Ended(types.UID(pod.GetUid()), pod.GetId())
	return nil
}

// networkOf returns where a sandbox's network namespace is. It is false for one on the host's network, and for one
// whose network is torn down.
func networkOf(pod *api.PodSandbox) (sandboxInfo, bool) {
	for _, ns := range pod.GetLinux().GetNamespaces() {
		if ns.GetType() == "network" {
			info := sandboxInfo{netNS: ns.GetPath(), pid: int(pod.GetPid())}
			return info, info != sandboxInfo{}
		}
	}
	return sandboxInfo{}, false
}
