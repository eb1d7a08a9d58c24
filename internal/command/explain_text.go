package command

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// printExplanation writes a block for each interface: the verdict, the custom rules and the policies. For example:
//
//	DENIED: 80/tcp, ingress on net1 of shop/web from 10.10.0.33
//	  policy shop/web-policy isolates the interface
//	    no  ingress[0]: …
//
// An explanation without interfaces writes nothing.
func printExplanation(out io.Writer, e explain.Explanation) error {
	var b strings.Builder
	colors := colorsOf(out)
	remote, preposition := e.Remote, "from"
	if e.Direction == engine.Egress.String() {
		preposition = "to"
	}
	for i, n := range e.Interfaces {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s: %s, %s on %s of %s %s %s\n", colors.verdict(n.Verdict), e.Packet, e.Direction,
			n.Interface, e.Pod, preposition, remote)
		printDecision(&b, n, "  ")
		for _, p := range e.RemotePods {
			fmt.Fprintf(&b, "  %s is pod %s\n", e.Remote, p)
		}
		printCustomRules(&b, n.CustomRules)
		for _, p := range n.Policies {
			printPolicy(&b, p)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printDecision writes the deciding rule of an interface, and reasons why the verdict may be another.
func printDecision(b *strings.Builder, n explain.InterfaceExplanation, indent string) {
	fmt.Fprintf(b, "%sdecided by %s: %s\n", indent, n.DecidedBy, n.Reason)
	if n.Bridge != "" {
		fmt.Fprintf(b, "%s%s\n", indent, n.Bridge)
	}
	for _, c := range n.Caveats {
		fmt.Fprintf(b, "%sbut: %s\n", indent, c)
	}
}

// printCustomRules writes the custom rules that the packet met, in their order.
// Custom rules come before the policies, so they can decide before a policy is asked.
func printCustomRules(b *strings.Builder, rules []explain.CustomRuleExplanation) {
	for _, r := range rules {
		// An unsure verdict depends on properties of the packet that the query does not have.
		switch {
		case r.Verdict == "":
			fmt.Fprintf(b, "  custom rule decides nothing: %s\n", r.Rule)
		case r.Unsure:
			fmt.Fprintf(b, "  custom rule may %s it, which depends on more than was asked: %s\n", r.Verdict, r.Rule)
		default:
			fmt.Fprintf(b, "  custom rule: %s: %s\n", r.Verdict, r.Rule)
		}
	}
}

// printPolicy writes a policy, its rules with "yes" for rules that allow the packet, and its problems.
func printPolicy(b *strings.Builder, p explain.PolicyExplanation) {
	switch {
	case p.Isolates && p.Audited:
		fmt.Fprintf(b, "  policy %s would isolate the interface, and is in audit mode\n", p.Policy)
	case p.Isolates:
		fmt.Fprintf(b, "  policy %s isolates the interface\n", p.Policy)
	default:
		fmt.Fprintf(b, "  policy %s %s\n", p.Policy, p.Reason)
	}
	if p.Isolates && len(p.Rules) == 0 {
		b.WriteString("    it has no rules for this direction\n")
	}
	for _, r := range p.Rules {
		// The marks have the same width, so that the texts align.
		mark := "no "
		if r.Allows {
			mark = "yes"
		}
		fmt.Fprintf(b, "    %s %s: %s\n", mark, r.Rule, r.Reason)
	}
	for _, problem := range p.Problems {
		fmt.Fprintf(b, "    invalid: %s\n", problem)
	}
}

// printChanges writes a block for each interface and direction.
// Before and after are shown only if they differ.
func printChanges(out io.Writer, changes []explain.Change) error {
	var b strings.Builder
	if len(changes) == 0 {
		b.WriteString("No connection is opened or closed.\n")
	}
	for _, c := range changes {
		fmt.Fprintf(&b, "%s %s %s", c.Pod, c.Interface, c.Direction)
		if c.Before != c.After {
			fmt.Fprintf(&b, " (was %s, is %s)", c.Before, c.After)
		}
		b.WriteString("\n")
		printFlows(&b, "opens", c, c.Opened)
		printFlows(&b, "closes", c, c.Closed)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printFlows writes the flows that a change opens or closes, in the form of a sentence:
//
//	opens 80/tcp from 10.10.0.11 (shop/frontend)
func printFlows(b *strings.Builder, verb string, c explain.Change, flows []explain.Flow) {
	preposition := "from"
	if c.Direction == engine.Egress.String() {
		preposition = "to"
	}
	for _, f := range flows {
		ports := f.Ports.String()
		if f.Ports.All {
			ports = strings.Replace(ports, "all", "all protocols and ports", 1)
		}
		fmt.Fprintf(b, "  %s %s %s %s", verb, ports, preposition, f.Peers)
		if len(f.Pods) > 0 {
			fmt.Fprintf(b, " (%s)", strings.Join(f.Pods, ", "))
		}
		b.WriteString("\n")
	}
}

// colors says whether verdicts are written in color.
type colors bool

// colorsOf returns whether a writer shows colors: it is a terminal, and the user has not set NO_COLOR (https://no-color.org).
func colorsOf(out io.Writer) colors {
	file, isFile := out.(*os.File)
	return colors(isFile && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isColorTerminal(file))
}

// verdictColors are the codes of ECMA-48 for the verdicts: green, red, yellow.
var verdictColors = map[explain.Verdict]string{
	explain.Allowed: "32", explain.Denied: "31", explain.NotEnforced: "33", explain.NoPath: "33",
}

// verdict returns the verdict in capital letters.
func (c colors) verdict(v explain.Verdict) string { return c.paint(v, strings.ToUpper(string(v))) }

// paint returns a text in the color of a verdict.
func (c colors) paint(v explain.Verdict, text string) string {
	if !c {
		return text
	}
	return "\x1b[" + verdictColors[v] + "m" + text + "\x1b[0m"
}
