package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
)

// cleanupOptions are the flags of cleanup.
type cleanupOptions struct {
	runtime runtimeOptions
	netns   []string
}

func newCleanup() *cobra.Command {
	var o cleanupOptions
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Removes the agent's tables from every pod on this node",
		Long: `Removes the agent's tables from the network namespace of every pod on this node, as the container runtime tells of them,
or of those at the paths of --netns, and what a trace left that was killed. Nothing is isolated after that. Nothing else
ever removes the rules of pods that policies select: stop the agent for good first, or it puts them back.

It prints a line for each pod. The exit code is 0 when no table of the agent's is left, else 1.`,
		Args: asUsage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	o.runtime.addFlags(cmd.Flags())
	addList(cmd.Flags(), &o.netns, "netns", "",
		"`path` of a network namespace, as /run/netns/NAME; the container runtime is not asked then")
	return cmd
}

func (o *cleanupOptions) run(ctx context.Context, out io.Writer) error {
	namespaces, err := o.namespaces(ctx)
	if err != nil {
		return err
	}
	failed := 0
	for _, n := range namespaces {
		line, err := n.clean(ctx)
		if err != nil {
			failed++
			line = "not removed: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", n.name, line); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("cleanup failed for %d of %d network namespaces", failed, len(namespaces))
	}
	return nil
}

// podNamespace is a network namespace that may have a table.
type podNamespace struct {
	name, path string
	err        error // why the path is not known
}

func (o *cleanupOptions) namespaces(ctx context.Context) ([]podNamespace, error) {
	var all []podNamespace
	for _, path := range o.netns {
		all = append(all, podNamespace{name: path, path: path})
	}
	if len(all) > 0 {
		return all, nil
	}
	sandboxes, err := sandbox.List(ctx, o.runtime.endpoint, o.runtime.hostPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the pods of this node: %w (--netns names network namespaces without a runtime)", err)
	}
	for _, s := range sandboxes {
		all = append(all, podNamespace{name: s.Pod.String(), path: s.NetNS, err: s.Err})
	}
	return all, nil
}

// clean removes the tables, and what a trace left, and says what it found.
func (n podNamespace) clean(ctx context.Context) (string, error) {
	if n.err != nil {
		return "", n.err
	}
	e, err := engine.OpenNamespace(n.name, n.path, engine.Options{})
	if err != nil {
		return "", cause(err)
	}
	err = e.Apply(ctx, engine.Tables{})
	traced, errTrace := trace.Remove(n.path)
	if err := errors.Join(err, errTrace, e.Close()); err != nil {
		return "", cause(err)
	}
	line := "has no table"
	if e.Stats().Batches > 0 {
		line = "removed"
	}
	if traced {
		line += "; what a killed trace left is removed"
	}
	return line, nil
}

// cause leaves out the pod, which stands before it, and says what a refusal means.
func cause(err error) error {
	var apply *engine.ApplyError
	if !errors.As(err, &apply) {
		return err
	}
	switch refused := errors.Is(err, unix.EPERM); {
	case refused && apply.Op == "remove":
		return fmt.Errorf("%w: the table belongs to a running agent, which must be stopped first "+
			"(or this process has no CAP_NET_ADMIN there)", unix.EPERM)
	case refused:
		return fmt.Errorf("%w: it takes root, or CAP_SYS_ADMIN and CAP_NET_ADMIN", apply.Err)
	}
	return apply.Err
}
