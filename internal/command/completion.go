package command

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// completionTimeout bounds the time for a completion: a shell waits for it.
const completionTimeout = 5 * time.Second

// completeWords makes the shell complete a flag with fixed words.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	completeFlag(cmd, flag, func() []string { return words })
}

// completeFlag makes the shell complete a flag with the words of a function, as far as they continue the word.
func completeFlag(cmd *cobra.Command, flag string, words func() []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		matching := slices.DeleteFunc(slices.Clone(words()), func(w string) bool { return !strings.HasPrefix(w, begin) })
		return matching, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the command has no such flag, or the flag twice
	}
}

// complete makes the shell complete the given flags with pods, and the flags for namespaces, networks and contexts that the
// command has. The objects come from the manifests on the command line, or from the API server.
func (o *worldOptions) complete(cmd *cobra.Command, podFlags ...string) {
	// load returns nil if the objects cannot be read: a completion has no errors.
	load := func() *world {
		ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
		defer cancel()
		if slices.Contains(o.files, "-") {
			return nil // the terminal
		}
		w, err := o.load(ctx, strings.NewReader(""), io.Discard)
		if err != nil {
			return nil
		}
		return w
	}
	for _, flag := range podFlags {
		completeFlag(cmd, flag, func() []string {
			namespace, err := o.namespace()
			if err != nil {
				return nil
			}
			return load().podWords(namespace)
		})
	}
	completeFlag(cmd, "namespace", func() []string { return load().namespaceNames() })
	if cmd.Flags().Lookup("network") != nil {
		completeFlag(cmd, "network", func() []string { return load().networkNames() })
	}
	o.client.complete(cmd)
	completeWords(cmd, "established", keepEstablished, revokeEstablished)
}

// complete makes the shell complete the context.
func (o *clientOptions) complete(cmd *cobra.Command) {
	completeFlag(cmd, "context", func() []string {
		rules := clientcmd.NewDefaultClientConfigLoadingRules()
		rules.ExplicitPath, rules.WarnIfAllMissing = o.kubeconfig, false
		config, err := rules.Load()
		if err != nil {
			return nil
		}
		return slices.Sorted(maps.Keys(config.Contexts))
	})
}

// podWords returns the words for a pod: the names of the pods in a namespace, and all pods as NAMESPACE/NAME. w may be nil.
func (w *world) podWords(namespace string) []string {
	if w == nil {
		return nil
	}
	var words []string
	for _, name := range w.podNames(namespace) {
		words = append(words, strings.TrimPrefix(name, namespace+"/"))
	}
	return append(words, w.podNames("")...)
}

// namespaceNames returns the names of the namespaces with pods, sorted. w may be nil.
func (w *world) namespaceNames() []string {
	if w == nil {
		return nil
	}
	var names []string
	for key := range w.pods {
		names = append(names, key.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// networkNames returns the networks that pods are on, as NAMESPACE/NAME, sorted. w may be nil.
func (w *world) networkNames() []string {
	if w == nil {
		return nil
	}
	var names []string
	w.cache.Peers(func(p cache.PeerView) {
		for _, a := range p.Attachments {
			names = append(names, a.Network.String())
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}
