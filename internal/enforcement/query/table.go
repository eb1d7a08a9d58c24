package query

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/terminal"
)

// WriteTable writes a line for each row, and a last line with the counts. The column SINCE has ages, as in kubectl.
func (r *Report) WriteTable(out io.Writer) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(cells ...string) {
		for i, cell := range cells {
			cells[i] = terminal.Line(cmp.Or(cell, "-"))
		}
		fmt.Fprintln(table, strings.Join(cells, "\t")) //nolint:errcheck // into memory
	}
	line("STATE", "POLICY", "POD", "NODE", "SINCE", "REASON")
	for i := range r.Rows {
		row := &r.Rows[i]
		since := ""
		if row.Since != nil {
			since = duration.HumanDuration(time.Since(*row.Since))
		}
		line(string(row.State), row.Namespace+"/"+row.Policy, row.Pod, row.Node, since, row.reasons())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for text := range strings.Lines(b.String()) {
		if _, err := io.WriteString(out, strings.TrimRight(text, " \n")+"\n"); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, r.Summary.String())
	return err
}

// String returns the counts as a sentence.
func (s Summary) String() string {
	return fmt.Sprintf("%s, %s on %s: %d enforced, %d not enforced, %d unknown, %d without effect",
		count(s.Policies, "policy", "policies"), count(s.Pods, "pod", "pods"), count(s.Nodes, "node", "nodes"),
		s.Enforced, s.NotEnforced, s.Unknown, s.NoEffect)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// reasons returns all reasons of the row as a text.
func (r *Row) reasons() string {
	var texts []string
	for _, reason := range r.Reasons {
		text := reason.Reason
		if reason.Interface != "" {
			text += " on " + reason.Interface
		}
		texts = append(texts, text+": "+reason.Message)
	}
	return strings.Join(texts, "; ")
}
