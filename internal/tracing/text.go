//go:build linux

package tracing

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/terminal"
)

// Print writes an answer: as a JSON object in a single line, or as text in several lines.
func (a Answer) Print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(a)
	}
	_, err := io.WriteString(out, a.text())
	return err
}

// timeFormat shows microseconds: packets often follow each other closely.
const timeFormat = "15:04:05.000000"

// text returns the answer as text: a line with the verdict, a line with the reason, and a line for each step.
func (a Answer) text() string {
	var b strings.Builder
	// Tables and interfaces of the pod may have any names.
	line := func(format string, args ...any) { b.WriteString(terminal.Line(fmt.Sprintf(format, args...)) + "\n") }
	line("%s %s: %s, %s on %s", a.Time.Format(timeFormat), strings.ToUpper(string(a.Verdict)),
		a.Packet.String(), a.Direction, a.Interface)
	if a.DecidedBy != "" {
		line("  decided by %s: %s", a.DecidedBy, a.Reason)
	} else {
		line("  %s", a.Reason)
	}
	for _, s := range a.Steps {
		line("    %s", s.text())
	}
	return b.String()
}

// text returns the step as text, such as
//
//	ingress-policy-64deb0d0ffca6eeb rule 12 "shop/web-policy ingress[0]": accept @peers-2d3e51bfc748c53a-v4
func (s Step) text() string {
	var b strings.Builder
	if s.Table != "" {
		fmt.Fprintf(&b, "table %s, ", s.Table)
	}
	b.WriteString(s.Chain)
	// The policy of a base chain has no rule.
	if s.Handle == 0 {
		fmt.Fprintf(&b, ": policy %s", s.Verdict)
		return b.String()
	}
	fmt.Fprintf(&b, " rule %d", s.Handle)
	if s.Comment != "" {
		fmt.Fprintf(&b, " %q", s.Comment)
	}
	switch {
	case s.Rule != "":
		fmt.Fprintf(&b, ": %s", s.Rule)
	case s.Target != "":
		fmt.Fprintf(&b, ": %s %s", s.Verdict, s.Target)
	default:
		fmt.Fprintf(&b, ": %s", s.Verdict)
	}
	for _, set := range s.Sets {
		fmt.Fprintf(&b, " @%s", set)
	}
	if s.NoMatch {
		b.WriteString(", where no rule matched")
	}
	return b.String()
}
