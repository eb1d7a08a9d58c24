package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// diffOptions are the flags of explain diff.
// files may be empty; the two arguments are paths of their own.
type diffOptions struct {
	program        Program
	files          []string // manifests of both sets
	kustomizations []string // directories of both sets
	namespace      string
	table          tableOptions
	output         outputOptions
	isExitCode     bool
}

// newExplainDiff returns the command explain diff.
func newExplainDiff(p Program) *cobra.Command {
	o := diffOptions{program: p}
	cmd := &cobra.Command{
		Use:   "diff [-f FILE|DIR|URL]... OLD NEW",
		Short: "Lists the connections that a change of manifests opens and closes",
		Long: `Compares two sets of manifests: files, directories, URLs, or - for standard input. For each pod, interface and direction it
lists the connections that only the new manifests allow and the connections that only the old manifests allow: ranges of
peers' addresses and ports, computed from the sets of the tables. -f and -k name manifests that belong to both sets.

It leaves out interfaces that no policy isolates in either set, and neighbor discovery and custom rules, since policies do
not affect them. An absent interface counts as an interface that lets nothing pass.

The exit code is 0 for any answer, 1 for an error, and 2 for an invalid command line. With --exit-code it is 0 if no
connection changes, 1 if any does, and 2 for an error.`,
		Example: p.examples(
			"explain diff -f cluster/ old.yaml new.yaml",
			"explain diff --exit-code -f cluster/ old/ new/",
		),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("explain diff takes two arguments, OLD and NEW; got %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			err := o.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil && o.isExitCode && !errors.As(err, new(exitCode)) {
				return troubleError{err}
			}
			return err
		},
	}
	addManifests(cmd.Flags(), &o.files, &o.kustomizations, ", for both sets")
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "namespace of objects without one; without it, default")
	cmd.Flags().BoolVar(&o.isExitCode, "exit-code", false, "exit code 1 if any connection changes, and 2 for an error")
	o.table.addFlags(cmd.Flags())
	o.output.addFlags(cmd, "text", "json", "yaml")
	return cmd
}

// run loads both sets of manifests and prints the changes. It writes all problems of objects as warnings. With --exit-code, a
// change is an exitCode.
func (o *diffOptions) run(ctx context.Context, sides []string, stdin io.Reader, out, warnings io.Writer) error {
	if err := o.output.check(); err != nil {
		return err
	}
	worlds, err := o.load(ctx, sides, stdin, warnings)
	if err != nil {
		return err
	}
	changes := explain.Diff(worlds[0].cache, worlds[1].cache)
	if changes == nil {
		changes = []explain.Change{} // JSON has [] for it, not null
	}
	err = o.output.write(out, changes, func(out io.Writer) error { return printChanges(out, changes) })
	if err == nil && o.isExitCode && len(changes) > 0 {
		return exitCode(1)
	}
	return err
}

// load loads the old and the new manifests, in this order.
func (o *diffOptions) load(ctx context.Context, sides []string, stdin io.Reader, warnings io.Writer) ([]*world, error) {
	all := slices.Concat(o.files, sides)
	if first := slices.Index(all, "-"); first >= 0 && (first < len(o.files) || slices.Contains(all[first+1:], "-")) {
		return nil, usageError{errors.New("standard input (-) can be OLD or NEW, once")}
	}
	// Without a node, pods of all nodes are local: a change may affect any of them.
	options, err := o.table.load("")
	if err != nil {
		return nil, err
	}
	if err := o.table.warn(warnings); err != nil {
		return nil, err
	}
	var worlds []*world
	for _, path := range sides {
		w, err := loadFiles(ctx, options, informers.Input{
			Paths: append(slices.Clone(o.files), path), Kustomizations: o.kustomizations,
			Namespace: o.namespace, Stdin: stdin, Kustomize: o.program.Kustomize,
		})
		if err != nil {
			return nil, err
		}
		for _, p := range w.problems {
			if _, err := fmt.Fprintf(warnings, "warning: with %s: %s %s: %s\n", path, p.kind, p.key, p.Problem); err != nil {
				return nil, err
			}
		}
		worlds = append(worlds, w)
	}
	return worlds, nil
}
