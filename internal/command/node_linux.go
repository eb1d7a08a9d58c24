package command

import "github.com/spf13/cobra"

// agentCommand returns the root command of the agent. It runs the agent, so that the container needs no subcommand.
func (p Program) agentCommand() *cobra.Command {
	agent := agentOptions{version: p.Version}
	root := &cobra.Command{
		Use:   program,
		Short: "Enforces MultiNetworkPolicy on this node's pods with nftables",
		Long: `Runs on every node and enforces MultiNetworkPolicy on the secondary networks of the pods there, with nftables inside
each pod's network namespace. Rules stay in force when it stops.`,
		Example: p.examples(
			"--kubeconfig /etc/kubernetes/kubelet.conf --hostname-override node-1",
			"explain -f cluster/ --from shop/frontend --to shop/web --port http",
			"demo",
		),
		RunE: func(cmd *cobra.Command, _ []string) error { return agent.run(cmd.Context()) },
	}
	agent.addFlags(root.Flags())
	return root
}

// nodeCommands returns the commands that work on a node.
func nodeCommands() []*cobra.Command { return []*cobra.Command{newTrace(), newCleanup(), newDemo()} }
