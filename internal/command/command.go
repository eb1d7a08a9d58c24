package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// program is the name of the binary, in usage texts, errors and the user agent.
const program = "multi-networkpolicy-nftables"

// Main runs the program and returns its exit code: 0 for success, 1 for an error, 2 for an invalid command line. It writes an
// error as a single line to stderr. The version may be empty. SIGINT and SIGTERM end the program.
func Main(version string, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The first signal ends the context, and a second signal is caught too: commands end by the context only.
	defer stop()
	root := Root(version)
	root.SetArgs(args)
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
	if _, err := fmt.Fprintf(stderr, "%s: %s\n", program, line); err != nil {
		return 2 // stderr is not writable
	}
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

// exitCode is an error whose message was printed already. Main returns it as the exit code and prints nothing.
// The demo uses it: its child process in the user namespace has printed the error.
type exitCode int

// Error implements error. Nothing prints it.
func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Root returns the command that runs the agent, with the other commands as its subcommands. The version may be empty.
// The root command runs the agent, so that the container needs no subcommand. Each call returns a new tree, with
// flags of its own.
func Root(version string) *cobra.Command {
	version = versionText(version)
	agent := agentOptions{version: version}
	var logging loggingOptions
	root := &cobra.Command{
		Use:   program,
		Short: "Enforces MultiNetworkPolicy on this node's pods with nftables",
		Long: `Runs on every node and enforces MultiNetworkPolicy on the secondary networks of the pods there, with nftables inside
each pod's network namespace. Rules stay in force when it stops.`,
		Args: asUsage(cobra.NoArgs),
		// Main prints errors itself, as a single line and without the usage.
		SilenceErrors: true,
		SilenceUsage:  true,
		// Runs before each command, with the flags parsed: the context carries the logger from here on.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := logging.setUp(cmd.Context(), cmd.ErrOrStderr())
			cmd.SetContext(ctx)
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return agent.run(cmd.Context()) },
	}
	agent.addFlags(root.Flags())
	logging.addFlags(root.PersistentFlags())
	// An unknown flag is a usage error too: the exit code is 2.
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newCleanup(), newDemo(), newExplain(), newRender(), newTrace(), newVersion(version))
	return root
}
