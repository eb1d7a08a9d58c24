package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// renderOptions are the flags of render.
type renderOptions struct {
	world  worldOptions
	output outputOptions
	pod    string // as given: NAMESPACE/NAME
}

// newRender returns the command render.
func newRender(p Program) *cobra.Command {
	o := renderOptions{world: worldOptions{program: p}}
	cmd := &cobra.Command{
		Use:   "render [-f FILE|DIR|URL|-]... --pod NAMESPACE/NAME",
		Short: "Prints the table that a pod would get",
		Long: `Prints the nftables table that a pod would get, in nft's syntax, and for a virtual machine the table for its bridge. It
reads manifests, or without -f the objects of an API server. The pod can be on any node. It needs no privileges and no
kernel, and changes nothing.`,
		Example: p.examples("render -f cluster/ --pod shop/web", "render -n shop --pod web -o json"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.world.addFlags(cmd.Flags())
	o.output.addFlags(cmd, "text", "json")
	cmd.Flags().StringVar(&o.pod, "pod", "", "the pod, as `NAMESPACE/NAME` or NAME")
	o.world.complete(cmd, "pod")
	return cmd
}

// run loads the objects and prints the pod's table. It writes problems of the pod and of policies in its namespace as warnings.
// The table is that of the cache's plan: the agent would apply the same table.
func (o *renderOptions) run(ctx context.Context, stdin io.Reader, out, warnings io.Writer) error {
	namespace, err := o.world.namespace()
	if err != nil {
		return err
	}
	pod, err := parsePodKey("pod", o.pod, namespace)
	if err != nil {
		return err
	}
	if err := o.output.check(); err != nil {
		return err
	}
	w, err := o.world.load(ctx, stdin, warnings)
	if err != nil {
		return err
	}
	if err := w.has(pod); err != nil {
		return err
	}
	err = w.warn(warnings, func(kind string, key cache.Key) bool {
		return key == pod || kind == informers.KindPolicy && key.Namespace == pod.Namespace
	})
	if err != nil {
		return err
	}
	tables, err := explain.Preview(w.cache, pod)
	switch {
	case err != nil:
		return err
	case o.output.format == "json":
		// In JSON, no table is an empty list, so no note is needed.
		return engine.RenderJSON(out, tables)
	case tables.IsEmpty():
		_, err := fmt.Fprintf(out, "# %s gets no table: no policy isolates an interface of it\n", pod)
		return err
	}
	for _, f := range expr.TableFamilies {
		if err := engine.Render(out, f, tables[f]); err != nil {
			return err
		}
	}
	return nil
}
