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
	netns   []string // paths; empty: all pods of the container runtime
}

// newCleanup returns the command cleanup.
func newCleanup() *cobra.Command {
	var o cleanupOptions
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Removes the agent's tables from every pod on this node",
		Long: `Removes the agent's tables, and the table of a killed trace, from the network namespace of every pod on this node. It asks
the container runtime for the pods, or takes the network namespaces of --netns. After it, no pod is isolated. Nothing else
removes the rules of pods that policies select. Stop the agent for good first, or it restores them.

It prints a line for each pod. The exit code is 0 if no table of the agent is left, else 1.`,
		Example: Program{}.examples("cleanup", "cleanup --netns /run/netns/web"),
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	o.runtime.addFlags(cmd.Flags())
	addList(cmd.Flags(), &o.netns, "netns", "",
		"`path` of a network namespace, as /run/netns/NAME, instead of the container runtime's pods")
	return cmd
}

// run cleans each network namespace and prints a line for it. An error in a namespace does not stop the others.
// The error at the end counts the failures; their reasons are in the lines.
func (o *cleanupOptions) run(ctx context.Context, out io.Writer) error {
	namespaces, err := o.namespaces(ctx)
	if err != nil {
		return err
	}
	failed := 0
	for _, n := range namespaces {
		// In turn: the order of the lines is that of the runtime's list.
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

// podNamespace is the network namespace of a pod, which may have the agent's table.
// A pod whose path is unknown still gets a line, so the user sees that its table may be left.
type podNamespace struct {
	name, path string // name in the output, and path of the namespace
	err        error  // why the path is unknown; nil: it is known
}

// namespaces returns the network namespaces of --netns, or else of all pods of the container runtime.
// An error to reach the runtime is returned with the way around it.
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

// clean removes the agent's tables and the table of a killed trace. It returns the line for the user.
// Both tables are removed even if the first removal fails.
func (n podNamespace) clean(ctx context.Context) (string, error) {
	if n.err != nil {
		return "", n.err
	}
	// Without ownership: this process ends at once, and leaves nothing.
	e, err := engine.OpenNamespace(n.name, n.path, engine.Options{})
	if err != nil {
		return "", cause(err)
	}
	// Empty tables mean that the namespace should have none.
	err = e.Apply(ctx, engine.Tables{})
	traced, errTrace := trace.Remove(n.path)
	if err := errors.Join(err, errTrace, e.Close()); err != nil {
		return "", cause(err)
	}
	line := "has no table"
	// Without a batch, the namespace had no table.
	if e.Stats().Batches > 0 {
		line = "removed"
	}
	if traced {
		line += "; what a killed trace left is removed"
	}
	return line, nil
}

// cause returns the error without the name of the pod, which the output has already. It explains EPERM: the kernel refuses to
// change a table that another process owns (NFT_TABLE_F_OWNER), and operations without the capabilities.
// err must come from the engine to be shortened; every other error is returned as it is.
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
