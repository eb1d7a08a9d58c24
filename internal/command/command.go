package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// program is the name of the binary, in usage texts, errors and the user agent.
const program = "multi-networkpolicy-nftables"

// Program is a binary with the command line. The zero value is the agent.
type Program struct {
	Version string // empty: the version that the Go build recorded
	// IsPlugin selects the commands of the kubectl plugin: those for any machine, without the commands for a node.
	IsPlugin bool
	// Kustomize returns the manifests that kustomize builds from a directory. Nil: -k is an error.
	Kustomize func(dir string) ([]byte, error)
}

// name returns the words with which a user runs the program.
func (p Program) name() string {
	if p.IsPlugin {
		return "kubectl mnp"
	}
	return program
}

// Main runs the agent's program and returns its exit code, see Program.Main.
func Main(version string, args []string, stdout, stderr io.Writer) int {
	return Program{Version: version}.Main(args, os.Stdin, stdout, stderr)
}

// Root returns the tree of commands of the agent's program, see Program.Root.
func Root(version string) *cobra.Command { return Program{Version: version}.Root() }

// Main runs the program and returns its exit code: 0 for success, 1 for an error, 2 for an invalid command line. It writes an
// error as a single line to stderr. SIGINT and SIGTERM end the program.
func (p Program) Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The first signal ends the context, and a second signal is caught too: commands end by the context only.
	defer stop()
	root := p.Root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	// An exitCode first: its message was printed already.
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	// A line per error, so that logs and scripts can take stderr line by line.
	line := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	if _, err := fmt.Fprintf(stderr, "%s: %s\n", p.name(), line); err != nil {
		return 2 // stderr is not writable
	}
	if errors.As(err, new(usageError)) || errors.As(err, new(troubleError)) {
		return 2
	}
	return 1
}

// Groups of commands in the help.
const (
	groupPolicies = "policies"
	groupNode     = "node"
	groupOther    = "other"
)

// Root returns the command that runs the agent, with the other commands as its subcommands. The root command of the plugin
// prints its help. Each call returns a new tree, with flags of its own.
func (p Program) Root() *cobra.Command {
	p.Version = versionText(p.Version)
	var logging loggingOptions
	root := p.agentCommand()
	if p.IsPlugin {
		root = p.pluginCommand()
	}
	root.Version = p.Version // for --version
	root.Args = noArgs
	// Main prints errors itself, as a single line and without the usage.
	root.SilenceErrors, root.SilenceUsage = true, true
	// Runs before each command, with the flags parsed: the context carries the logger from here on.
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		ctx, err := logging.setUp(cmd.Context(), cmd.ErrOrStderr())
		cmd.SetContext(ctx)
		return err
	}
	logging.addFlags(root.PersistentFlags())
	// An unknown flag is a usage error too: the exit code is 2.
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: groupPolicies, Title: "Ask about policies, on any machine:"})
	addTo := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	addTo(groupPolicies, newExplain(p), newRender(p), newEnforcement(p), newDrops(p))
	if !p.IsPlugin {
		root.AddGroup(&cobra.Group{ID: groupNode, Title: "Work on this node:"})
		addTo(groupNode, nodeCommands()...)
	}
	root.AddGroup(&cobra.Group{ID: groupOther, Title: "About the program:"})
	addTo(groupOther, newVersion(p))
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	return root
}

// pluginCommand returns the root command of the kubectl plugin.
func (p Program) pluginCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "kubectl-mnp",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: p.name()},
		Short:       "Answers questions about MultiNetworkPolicy",
		Long: `Tells who reaches whom under MultiNetworkPolicy, which policy and rule decides, where policies are enforced, and which packets
they drop. It reads the objects of the cluster in your kubeconfig, or manifests with -f and -k. It changes nothing.`,
		Example: p.examples(
			"explain --from shop/frontend --to shop/web --port http",
			"explain matrix -n shop",
			"explain diff --exit-code old/ new/",
			"enforcement web-policy -n shop",
			"drops --pod shop/web",
		),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// examples returns the text of a command's examples, each with the name of the program.
func (p Program) examples(lines ...string) string {
	return "  " + p.name() + " " + strings.Join(lines, "\n  "+p.name()+" ")
}

// exitCode is an error whose message was printed already. Main returns it as the exit code and prints nothing.
// The demo uses it: its child process in the user namespace has printed the error.
type exitCode int

// Error implements error. Nothing prints it.
func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }
