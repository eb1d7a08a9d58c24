package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/command"
)

// notes has more about a flag of the agent than its help: a text in Markdown, which follows the help.
var notes = map[string]string{
	"accept-icmp":      "IGMP to multicast groups always passes",
	"accept-icmpv6":    "Router discovery and MLD always pass too",
	"allow-dst-prefix": "See [custom rules](custom-rules.md)", "allow-src-prefix": "See [custom rules](custom-rules.md)",
	"allow-ipv6-dst-prefix": "See [custom rules](custom-rules.md)", "allow-ipv6-src-prefix": "See [custom rules](custom-rules.md)",
	"container-runtime-endpoint":  "The [order of the sockets](components.md#container-runtimes)",
	"custom-v4-egress-rule-file":  "See [custom rules](custom-rules.md)",
	"custom-v4-ingress-rule-file": "See [custom rules](custom-rules.md)",
	"custom-v6-egress-rule-file":  "See [custom rules](custom-rules.md)",
	"custom-v6-ingress-rule-file": "See [custom rules](custom-rules.md)",
	"enforced-by":                 "See [interfaces](interfaces.md#networks-that-another-implementation-enforces)",
	"established":                 "See [established connections](nftables.md#established-connections)",
	"health-bind-address":         "See [endpoints](metrics.md#endpoints)",
	"limit":                       "The [names and defaults](limits.md)",
	"metrics-bind-address":        "See [endpoints](metrics.md#endpoints)",
	"network-plugins":             "The first plugin of a chain counts. See [interfaces](interfaces.md)",
	"nri-socket": "The default socket is `/run/nri/nri.sock`. With a path, the agent is [ready](metrics.md#endpoints) only when the runtime has " +
		"connected. See [the first instant of a pod](architecture.md#the-first-instant-of-a-pod)",
	"policy-counters":        "They cost a counter for each first packet of a connection. See [metrics](metrics.md#metrics)",
	"remove-node-taint":      "See [no pods before policies](metrics.md#no-pods-before-policies)",
	"unenforceable-runtimes": "See [Kata Containers and gVisor](interfaces.md#kata-containers-and-gvisor)",
	"v":                      "Level 0 logs a line for each change",
}

// flagsPage returns the page of all commands and flags.
func flagsPage() (string, error) {
	root := command.Root("")
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	b.WriteString(begin + "# Commands and flags\n\n`multi-networkpolicy-nftables` without a subcommand runs the agent. An error is a single " +
		"line on stderr. The exit code is 1 after an\nerror, and 2 after an invalid command line. A flag of the type `strings` takes a list, separated " +
		"by commas. All commands take these flags,\nand `--help`:")
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { fmt.Fprintf(&b, " [%s](#%s)", flagName(f), root.Name()) })
	b.WriteString(".\n")
	used := map[string]bool{}
	writeCommand(&b, root, root, used)
	for name := range notes {
		if !used[name] {
			return "", fmt.Errorf("the note about --%s is about no flag", name)
		}
	}
	plugin := command.Program{IsPlugin: true}.Root()
	plugin.InitDefaultCompletionCmd()
	fmt.Fprintf(&b, "\n## kubectl mnp\n\nThe kubectl plugin (`cmd/kubectl-mnp`) has these commands, with the flags above:\n\n")
	err := writePlugin(&b, root, plugin)
	return b.String(), err
}

// writePlugin lists the commands of the plugin. A flag that the same command of the agent's program lacks is an error, since the page
// would not have it.
func writePlugin(b *strings.Builder, root, plugin *cobra.Command) (err error) {
	for _, c := range plugin.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "completion" {
			continue
		}
		same, _, errFind := root.Find(strings.Fields(strings.TrimPrefix(c.CommandPath(), c.Root().CommandPath())))
		if errFind != nil {
			return errFind
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if same.Flags().Lookup(f.Name) == nil && same.InheritedFlags().Lookup(f.Name) == nil {
				err = fmt.Errorf("%s has the flag --%s, and %s has not", c.CommandPath(), f.Name, same.CommandPath())
			}
		})
		fmt.Fprintf(b, "- `%s`\n", c.CommandPath())
		if errSub := writePlugin(b, root, c); errSub != nil {
			return errSub
		}
	}
	return err
}

// writeCommand writes the section of a command and those of its subcommands.
func writeCommand(b *strings.Builder, root, c *cobra.Command, used map[string]bool) {
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	title := strings.TrimPrefix(c.CommandPath(), root.Name()+" ")
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```text\n%s\n```\n", title, paragraphs(c), c.UseLine())
	var own, shared []*pflag.Flag
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		switch same := root.Flags().Lookup(f.Name); {
		case f.Name == "help" || f.Hidden:
		case c != root && same != nil && same.Usage == f.Usage && same.DefValue == f.DefValue:
			shared = append(shared, f)
		default:
			own = append(own, f)
		}
	})
	if len(own) > 0 {
		b.WriteString("\n| flag | default | meaning |\n| --- | --- | --- |\n")
	}
	for _, f := range own {
		note := ""
		if c == root {
			note, used[f.Name] = notes[f.Name], true
		}
		b.WriteString(flagRow(f, note))
	}
	if len(shared) > 0 {
		var names []string
		for _, f := range shared {
			names = append(names, "`--"+f.Name+"`")
		}
		fmt.Fprintf(b, "\nAs for [the agent](#%s): %s.\n", root.Name(), strings.Join(names, ", "))
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			writeCommand(b, root, sub, used)
		}
	}
}

// paragraphs returns the description of a command. The long ones of the shells' completions are of the library, and are left out.
func paragraphs(c *cobra.Command) string {
	if long := strings.TrimSpace(c.Long); long != "" && (c.Parent() == nil || c.Parent().Name() != "completion") {
		return long
	}
	return c.Short + "."
}

// flagRow returns the row of a flag. The note may be empty.
func flagRow(f *pflag.Flag, note string) string {
	value, usage := pflag.UnquoteUsage(f)
	name := flagName(f)
	if value != "" {
		name = strings.TrimSuffix(name, "`") + " " + value + "`"
	}
	preset := ""
	switch f.DefValue {
	case "", "[]", "false", "0", "0s":
	default: // the values of a list stand apart, so that the column is narrow
		preset = "`" + strings.ReplaceAll(strings.Trim(f.DefValue, "[]"), ",", "`, `") + "`"
	}
	meaning := strings.ReplaceAll(usage, "*", `\*`)
	if note != "" {
		meaning += ". " + note
	}
	return fmt.Sprintf("| %s | %s | %s |\n", cell(name), cell(preset), cell(meaning))
}

// flagName returns the short and the long form of a flag, as code.
func flagName(f *pflag.Flag) string {
	switch f.Shorthand {
	case "":
		return "`--" + f.Name + "`"
	case f.Name:
		return "`-" + f.Name + "`"
	}
	return "`-" + f.Shorthand + "`, `--" + f.Name + "`"
}
