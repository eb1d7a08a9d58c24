package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
)

// matrixOptions are the flags of explain matrix.
type matrixOptions struct {
	world   worldOptions
	output  outputOptions
	packet  packetOptions
	network string // as given: NAMESPACE/NAME or NAME
}

// newExplainMatrix returns the command explain matrix.
func newExplainMatrix(p Program) *cobra.Command {
	o := matrixOptions{world: worldOptions{program: p}}
	cmd := &cobra.Command{
		Use:   "matrix [-f FILE|DIR|URL|-]... [-n NAMESPACE] [--port PORT]",
		Short: "Shows who reaches whom in a namespace",
		Long: `Shows a table of the pods of a namespace: a row for each sender, a column for each receiver. A cell lists the protocols and
ports that both ends allow, on any network that both pods are on. With --port, a cell is yes or no.

In a cell, "-" means that the pods share no network, and "?" that policies of an end cannot be enforced. The table leaves out
neighbor discovery and custom rules.

The exit code is 0 for any answer, 1 for an error, and 2 for an invalid command line.`,
		Example: p.examples("explain matrix -f cluster/ -n shop", "explain matrix -n shop --port tcp/5432", "explain matrix -n shop -o json"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	o.world.addFlags(flags)
	o.output.addFlags(cmd, "text", "json", "yaml")
	flags.StringVar(&o.packet.port, "port", "", "only this `port`: a number, or the name of a port of the receiver; as 80, http or udp/53")
	flags.StringVar(&o.network, "network", "", "only this network, as `NAMESPACE/NAME`")
	o.world.complete(cmd)
	return cmd
}

// matrixCell is a cell with the answer to --port, in the output of the command.
type matrixCell struct {
	explain.Cell
	Port    string `json:"port,omitempty"` // "80/tcp"; empty without --port
	Allowed *bool  `json:"allowed,omitempty"`
}

// run loads the objects and prints the table.
func (o *matrixOptions) run(ctx context.Context, stdin io.Reader, out, warnings io.Writer) error {
	namespace, err := o.world.namespace()
	if err != nil {
		return err
	}
	var p packet
	if o.packet.port != "" {
		if p, err = o.packet.read(); err != nil {
			return usageError{err}
		}
	}
	if err := o.output.check(); err != nil {
		return err
	}
	w, err := o.world.load(ctx, stdin, warnings)
	if err != nil {
		return err
	}
	network, err := w.networkOf(o.network, namespace)
	if err != nil {
		return err
	}
	pods, err := w.podsIn(namespace)
	if err != nil {
		return err
	}
	if err := w.hasAll(warnings, pods...); err != nil {
		return err
	}
	// The warning about the pod says why its interfaces are unknown.
	pods = slices.DeleteFunc(pods, func(key cache.Key) bool { _, err := explain.PortsOf(w.cache, key); return err != nil })
	cells := o.answer(w.cache, explain.Matrix(w.cache, pods, network), p)
	return o.output.write(out, cells, func(out io.Writer) error { return printMatrix(out, pods, cells) })
}

// podsIn returns the pods of a namespace to which policies can apply, sorted. It returns an error if there is none.
func (w *world) podsIn(namespace string) ([]cache.Key, error) {
	var pods []cache.Key
	var namespaces []string
	for key, outside := range w.pods {
		namespaces = append(namespaces, key.Namespace)
		if key.Namespace == namespace && outside == nil {
			pods = append(pods, key)
		}
	}
	slices.SortFunc(pods, func(a, b cache.Key) int { return strings.Compare(a.Name, b.Name) })
	if len(pods) == 0 {
		slices.Sort(namespaces)
		return nil, fmt.Errorf("namespace %s has no pods with secondary networks in %s%s", namespace, w.origin,
			didYouMean(namespace, slices.Compact(namespaces)))
	}
	return pods, nil
}

// answer adds the answer to --port to the cells. A receiver without a port of this name gets no answer: nobody reaches it there.
func (o *matrixOptions) answer(c *cache.Cache, cells []explain.Cell, p packet) []matrixCell {
	answers := make([]matrixCell, 0, len(cells))
	for _, cell := range cells {
		a := matrixCell{Cell: cell}
		if p.protocol != 0 {
			to, err := parseKey(cell.To, "")
			var port uint16
			if err == nil {
				port, err = p.resolve(c, to)
			}
			allowed := err == nil && cell.Allows(p.protocol, port)
			a.Allowed, a.Port = &allowed, o.packet.port
		}
		answers = append(answers, a)
	}
	return answers
}

// text returns the cell in the table.
func (c *matrixCell) text() string {
	text := c.Ports.String()
	switch {
	case c.Allowed != nil && *c.Allowed:
		text = "yes"
	case c.Allowed != nil || text == "":
		text = "no"
	}
	if c.Unenforced {
		text += " ?"
	}
	return text
}

// printMatrix writes the table. Networks with different answers are in a cell one after the other, with their names.
func printMatrix(out io.Writer, pods []cache.Key, cells []matrixCell) error {
	byPair := map[[2]string][]*matrixCell{}
	for i := range cells {
		pair := [2]string{cells[i].From, cells[i].To}
		byPair[pair] = append(byPair[pair], &cells[i])
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := []string{"FROM \\ TO"}
	for _, to := range pods {
		line = append(line, to.Name)
	}
	var errs []error
	write := func() {
		_, err := fmt.Fprintln(table, strings.Join(line, "\t"))
		errs = append(errs, err)
	}
	write()
	for _, from := range pods {
		line = []string{from.Name}
		for _, to := range pods {
			if from == to {
				line = append(line, ".")
				continue
			}
			line = append(line, cellText(byPair[[2]string{from.String(), to.String()}]))
		}
		write()
	}
	errs = append(errs, table.Flush())
	for text := range strings.Lines(b.String()) {
		_, err := io.WriteString(out, strings.TrimRight(text, " \n")+"\n")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cellText returns the text for a pair of pods, with a cell for each network.
func cellText(cells []*matrixCell) string {
	if len(cells) == 0 {
		return "-"
	}
	isSame := !slices.ContainsFunc(cells, func(c *matrixCell) bool { return c.text() != cells[0].text() })
	if isSame {
		return cells[0].text()
	}
	var texts []string
	for _, c := range cells {
		texts = append(texts, c.Network+": "+c.text())
	}
	return strings.Join(texts, "; ")
}
