//go:build !linux

package command

import "github.com/spf13/cobra"

// agentCommand returns the root command of the plugin, since the agent runs on Linux only.
func (p Program) agentCommand() *cobra.Command { return p.pluginCommand() }

// nodeCommands returns nothing: a node runs Linux.
func nodeCommands() []*cobra.Command { return nil }
