package command

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
)

// colors says whether verdicts are written in color.
type colors bool

// colorsOf returns whether a writer shows colors: it is a terminal, and the user has not set NO_COLOR (https://no-color.org).
func colorsOf(out io.Writer) colors {
	file, isFile := out.(*os.File)
	return colors(isFile && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd())))
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
