package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// worldOptions are the flags for the source of objects, manifests or an API server, and for their interpretation.
// Explain and render have them.
type worldOptions struct {
	program        Program
	files          []string // files, directories, URLs, "-"; with kustomizations empty: the API server
	kustomizations []string // directories
	client         clientOptions
	table          tableOptions
}

// addFlags adds the flags.
func (o *worldOptions) addFlags(flags *pflag.FlagSet) {
	addManifests(flags, &o.files, &o.kustomizations, "; without it, the objects of the API server")
	o.client.addFlags(flags)
	o.table.addFlags(flags)
}

// addManifests adds the flags that name manifests.
func addManifests(flags *pflag.FlagSet, files, kustomizations *[]string, note string) {
	addList(flags, files, "filename", "f", "`file`, directory (recursive), URL, or - for standard input, with manifests"+note)
	addList(flags, kustomizations, "kustomize", "k", "`directory` that kustomize builds manifests from")
}

// isLocal reports whether the objects come from manifests.
func (o *worldOptions) isLocal() bool { return len(o.files)+len(o.kustomizations) > 0 }

// namespace returns the namespace of names without a namespace. The kubeconfig does not count for manifests, so that equal
// files give equal answers on all machines.
func (o *worldOptions) namespace() (string, error) {
	if o.isLocal() {
		return cmp.Or(o.client.namespace, metav1.NamespaceDefault), nil
	}
	return o.client.currentNamespace()
}

// load reads the objects once, from the manifests if there are any, else from the API server. It writes warnings about the flags.
// The context bounds the requests to the API server and downloads.
func (o *worldOptions) load(ctx context.Context, stdin io.Reader, warnings io.Writer) (*world, error) {
	options, err := o.table.load("")
	if err != nil {
		return nil, err
	}
	var w *world
	if o.isLocal() {
		w, err = loadFiles(ctx, options, informers.Input{
			Paths: o.files, Kustomizations: o.kustomizations, Namespace: o.client.namespace, Stdin: stdin, Kustomize: o.program.Kustomize,
		})
	} else {
		w, err = o.loadCluster(ctx, options)
	}
	if err != nil {
		return nil, err
	}
	return w, o.table.warn(warnings)
}

// loadCluster reads the objects of the API server, by the rights of the user who runs the command.
func (o *worldOptions) loadCluster(ctx context.Context, options cache.Options) (*world, error) {
	config, err := o.client.restConfig()
	if err != nil {
		return nil, err
	}
	source, err := informers.FromClients(config, settingsOf(&options))
	if err != nil {
		return nil, err
	}
	return newWorld(ctx, options, source, "the API server")
}

// settingsOf returns settings with which pods of all nodes are local.
// The node stays empty, and with it every pod is local, so a pod of any node has a table.
func settingsOf(options *cache.Options) informers.Settings {
	return informers.Settings{Limits: &options.Limits}
}

// loadFiles reads the objects in manifests.
// An error names the file that cannot be read or parsed. Objects with problems are no errors.
func loadFiles(ctx context.Context, options cache.Options, in informers.Input) (*world, error) {
	manifests, err := in.Read(ctx)
	if err != nil {
		return nil, err
	}
	files := informers.NewFiles()
	if err := files.Load(manifests); err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	origin := strings.Join(append(slices.Clone(in.Paths), in.Kustomizations...), ", ")
	return newWorld(ctx, options, files.Source(settingsOf(&options)), origin)
}

// world is a cache with a snapshot of all objects, and the problems of these objects.
// It does not change after newWorld: no watch follows the objects.
type world struct {
	cache    *cache.Cache
	origin   string              // files or "the API server", for errors
	pods     map[cache.Key]error // all pods, with the reason why policies cannot apply to a pod; nil: they can
	problems []worldProblem
}

// worldProblem is a problem with the object that has it.
type worldProblem struct {
	// kind is a kind of the package informers, such as informers.KindPolicy.
	kind string
	key  cache.Key
	policy.Problem
}

// newWorld reads all objects of a source into a new cache. Problems of objects are no errors: they are kept for
// warnings.
func newWorld(ctx context.Context, options cache.Options, source informers.Source, origin string) (*world, error) {
	w := &world{cache: cache.New(options), origin: origin, pods: map[cache.Key]error{}}
	err := informers.Snapshot(ctx, source, podNotes{w.cache, w.pods}, func(kind string, key cache.Key, problems []policy.Problem) {
		for _, p := range problems {
			w.problems = append(w.problems, worldProblem{kind, key, p})
		}
	})
	return w, err
}

// podNotes is a sink that also notes each pod, since the cache does not keep pods without networks.
type podNotes struct {
	*cache.Cache
	pods map[cache.Key]error // as in world
}

// UpsertPod implements informers.Sink.
func (n podNotes) UpsertPod(p cache.Pod) []policy.Problem {
	n.pods[p.Key] = whyOutside(p)
	return n.Cache.UpsertPod(p)
}

// whyOutside returns the reason why policies cannot apply to a pod, or nil.
// Such a pod gets no table, so an explanation of it would mislead.
func whyOutside(p cache.Pod) error {
	switch {
	case p.Outside != "":
		return errors.New(p.Outside)
	case strings.TrimSpace(p.Status) == "" && p.Requested == "":
		return fmt.Errorf("it has neither the annotation %s nor %s: Multus has not attached it to any network, and is not asked to",
			cache.StatusAnnotation, cache.NetworksAnnotation)
	}
	return nil
}

// has returns an error if the pod does not exist or policies cannot apply to it.
// The error names the files or the API server, as the pod may be in the other.
func (w *world) has(key cache.Key) error {
	outside, there := w.pods[key]
	switch {
	case !there:
		return fmt.Errorf("there is no pod %s in %s%s", key, w.origin, didYouMean(key.String(), w.podNames("")))
	case outside != nil:
		return fmt.Errorf("nothing to say of pod %s: %w", key, outside)
	}
	return nil
}

// warn writes the problems of the objects for which about returns true.
// The text is for standard error, so that the output stays parseable.
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

// podNames returns the names of the pods in a namespace, or in all namespaces, as NAMESPACE/NAME, sorted.
func (w *world) podNames(namespace string) []string {
	var names []string
	for key := range w.pods {
		if namespace == "" || key.Namespace == namespace {
			names = append(names, key.String())
		}
	}
	slices.Sort(names)
	return names
}
