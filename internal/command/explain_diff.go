package command

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
)

// diffOptions are the flags of explain diff.
// files may be empty; the two arguments are paths of their own.
type diffOptions struct {
	files  []string // manifests of both sets
	table  tableOptions
	output outputOptions
}

// newExplainDiff returns the command explain diff.
func newExplainDiff() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff [-f FILE|DIR...] OLD NEW",
		Short: "Lists the connections that a change of manifests opens and closes",
		Long: `Compares two sets of manifests, files or directories. For each pod, interface and direction it lists the connections that
only the new manifests allow and the connections that only the old manifests allow: ranges of peers' addresses and ports,
computed from the sets of the tables. -f names manifests that belong to both sets.

It leaves out interfaces that no policy isolates in either set, and neighbor discovery and custom rules, since policies do
not affect them. An absent interface counts as an interface that lets nothing pass.

The exit code is 0 for any answer, 1 for an error, and 2 for an invalid command line.`,
		Args: asUsage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], args[1], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addList(cmd.Flags(), &o.files, "filename", "f", "`file` or directory with manifests that belong to both sets")
	o.table.addFlags(cmd.Flags())
	o.output.addFlags(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

// run loads both sets of manifests and prints the changes. It writes all problems of objects as warnings.
func (o *diffOptions) run(ctx context.Context, before, after string, out, warnings io.Writer) error {
	if err := o.output.check(); err != nil {
		return err
	}
	// Without a node, pods of all nodes are local: a change may affect any of them.
	options, err := o.table.load("")
	if err != nil {
		return err
	}
	// The old state first. Both have the files of -f, cloned, because append must not share an array between the two.
	var worlds [2]*world
	for i, path := range []string{before, after} {
		if worlds[i], err = loadFiles(ctx, options, append(slices.Clone(o.files), path)...); err != nil {
			return err
		}
		for _, p := range worlds[i].problems {
			if _, err := fmt.Fprintf(warnings, "warning: with %s: %s %s: %s\n", path, p.kind, p.key, p.Problem); err != nil {
				return err
			}
		}
	}
	changes := explain.Diff(worlds[0].cache, worlds[1].cache)
	if changes == nil {
		changes = []explain.Change{} // JSON has [] for it, not null
	}
	return o.output.write(out, changes, func(out io.Writer) error { return printChanges(out, changes) })
}
