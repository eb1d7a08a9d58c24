package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// worldOptions say which objects a command looks at, and how.
type worldOptions struct {
	files []string
	api   apiOptions
	table tableOptions
}

func (o *worldOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&o.files, "filename", "f", nil,
		"`file` with manifests, or directory with all below it; without it, the objects of the API server")
	o.api.addFlags(flags)
	o.table.addFlags(flags)
}

// load reads the objects.
func (o *worldOptions) load(ctx context.Context) (*world, error) {
	options, err := o.table.load("")
	if err != nil {
		return nil, err
	}
	if len(o.files) > 0 {
		return loadFiles(ctx, options, o.files...)
	}
	config, err := o.api.restConfig()
	if errors.Is(err, errNotInCluster) {
		return nil, fmt.Errorf("%w, or -f manifests", err)
	}
	if err != nil {
		return nil, err
	}
	source, err := informers.FromClients(config)
	if err != nil {
		return nil, err
	}
	return newWorld(ctx, options, source, "the API server")
}

func loadFiles(ctx context.Context, options cache.Options, paths ...string) (*world, error) {
	files, err := informers.FromFiles(paths...)
	if err != nil {
		return nil, err
	}
	return newWorld(ctx, options, files.Source(), strings.Join(paths, ", "))
}

// world is the cache of all objects there are at one moment, with pods of all nodes, and what is wrong with them.
type world struct {
	*cache.Cache
	origin   string
	pods     map[cache.Key]error // why policies have nothing to do with the pod, if so
	problems []worldProblem
}

type worldProblem struct {
	kind string
	key  cache.Key
	cache.Problem
}

func newWorld(ctx context.Context, options cache.Options, source informers.Source, origin string) (*world, error) {
	w := &world{Cache: cache.New(options), origin: origin, pods: map[cache.Key]error{}}
	return w, informers.Snapshot(ctx, source, w)
}

// UpsertPod takes a pod.
func (w *world) UpsertPod(pod *corev1.Pod) []cache.Problem {
	key := cache.Key{Namespace: pod.Namespace, Name: pod.Name}
	w.pods[key] = whyOutside(pod)
	return w.note("Pod", key, w.Cache.UpsertPod(pod))
}

// UpsertPolicy takes a policy.
func (w *world) UpsertPolicy(p *mnpv1.MultiNetworkPolicy) []cache.Problem {
	return w.note("MultiNetworkPolicy", cache.Key{Namespace: p.Namespace, Name: p.Name}, w.Cache.UpsertPolicy(p))
}

// UpsertNAD takes a NetworkAttachmentDefinition.
func (w *world) UpsertNAD(n *netv1.NetworkAttachmentDefinition) []cache.Problem {
	return w.note("NetworkAttachmentDefinition", cache.Key{Namespace: n.Namespace, Name: n.Name}, w.Cache.UpsertNAD(n))
}

func (w *world) note(kind string, key cache.Key, problems []cache.Problem) []cache.Problem {
	for _, p := range problems {
		w.problems = append(w.problems, worldProblem{kind, key, p})
	}
	return problems
}

func whyOutside(pod *corev1.Pod) error {
	_, attached := pod.Annotations[netv1.NetworkStatusAnnot]
	_, attachedOld := pod.Annotations["k8s.v1.cni.cncf.io/networks-status"]
	_, asks := pod.Annotations[netv1.NetworkAttachmentAnnot]
	switch {
	case pod.Spec.HostNetwork:
		return errors.New("it is on the host's network, where no policy applies")
	case pod.Status.Phase == corev1.PodSucceeded, pod.Status.Phase == corev1.PodFailed:
		return errors.New("it has ended")
	case !attached && !attachedOld && !asks:
		return fmt.Errorf("it has neither the annotation %s nor %s: Multus has not attached it to any network, and is not asked to",
			netv1.NetworkStatusAnnot, netv1.NetworkAttachmentAnnot)
	}
	return nil
}

// has says whether there is such a pod, with networks.
func (w *world) has(key cache.Key) error {
	outside, there := w.pods[key]
	switch {
	case !there:
		return fmt.Errorf("there is no pod %s in %s", key, w.origin)
	case outside != nil:
		return fmt.Errorf("nothing to say of pod %s: %w", key, outside)
	}
	return nil
}

// warn writes the problems of objects that a command's answer does not tell of.
func (w *world) warn(to io.Writer, about func(kind string, key cache.Key) bool) error {
	for _, p := range w.problems {
		if !about(p.kind, p.key) {
			continue
		}
		if _, err := fmt.Fprintf(to, "warning: %s %s: %s\n", p.kind, p.key, p.Problem); err != nil {
			return err
		}
	}
	return nil
}

// parsePodKey reads NAMESPACE/NAME, or NAME in the namespace default.
func parsePodKey(s string) (cache.Key, error) {
	key := cache.Key{Namespace: "default", Name: s}
	if namespace, name, found := strings.Cut(s, "/"); found {
		key = cache.Key{Namespace: namespace, Name: name}
	}
	if key.Namespace == "" || key.Name == "" || strings.Contains(key.Name, "/") {
		return key, usageError{fmt.Errorf("--pod %q: must be NAMESPACE/NAME", s)}
	}
	return key, nil
}
