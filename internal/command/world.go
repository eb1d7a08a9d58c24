package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// worldOptions are the flags for the source of objects, manifests or an API server, and for their interpretation.
// Explain and render have them.
type worldOptions struct {
	files []string // files and directories; empty: the API server
	api   apiOptions
	table tableOptions
}

// addFlags adds the flags.
func (o *worldOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&o.files, "filename", "f", nil,
		"`file` or directory (recursive) with manifests; without it, the objects of the API server")
	o.api.addFlags(flags)
	o.table.addFlags(flags)
}

// load reads the objects once, from the files if there are any, else from the API server.
// The context bounds the requests to the API server. Files are read without it.
func (o *worldOptions) load(ctx context.Context) (*world, error) {
	options, err := o.table.load("")
	if err != nil {
		return nil, err
	}
	if len(o.files) > 0 {
		return loadFiles(ctx, options, o.files...)
	}
	// The objects of the cluster, by the rights of the user who runs the command.
	config, err := o.api.restConfig()
	if errors.Is(err, errNotInCluster) {
		return nil, fmt.Errorf("%w, or -f manifests", err)
	}
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
func loadFiles(ctx context.Context, options cache.Options, paths ...string) (*world, error) {
	files, err := informers.FromFiles(paths...)
	if err != nil {
		return nil, err
	}
	return newWorld(ctx, options, files.Source(settingsOf(&options)), strings.Join(paths, ", "))
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
		return fmt.Errorf("there is no pod %s in %s", key, w.origin)
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

// parsePodKey reads NAMESPACE/NAME, or NAME in the namespace default.
// An error is a usage error.
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
