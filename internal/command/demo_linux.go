package command

import (
	"fmt"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/demo"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// newDemo returns the command demo. It runs again in a user namespace if the process may not make network namespaces.
func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Enforces example policies between network namespaces on this machine, and shows what gets through",
		Long: `Makes network namespaces that stand for pods, joins them by a bridge, feeds example manifests to the agent's own
informers, cache and nftables engine, and sends real packets between all of them, before and after the policies.
It needs no cluster, and no root where user namespaces are allowed. It leaves nothing behind.`,
		Example: Program{}.examples("demo"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			code, done, err := lab.Reexec()
			switch {
			case err != nil:
				return fmt.Errorf("the demo needs network namespaces: %w", err)
			case done && code == 0:
				return nil
			case done:
				return exitCode(code)
			}
			// At a higher verbosity, since the agent's log of every change would mix with the demo's output. -v=1 shows it.
			ctx := logr.NewContext(cmd.Context(), logr.FromContextOrDiscard(cmd.Context()).V(1))
			return demo.Run(ctx, cmd.OutOrStdout())
		},
	}
}
