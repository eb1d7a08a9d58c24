package command

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// outputOptions are the flags of a command's output.
// format is checked by check, not by pflag, so that the error names the formats.
type outputOptions struct {
	format  string
	formats []string // the formats of the command, the default first
}

// addFlags adds --output with the formats that the command has.
// A command has at least one format. The first of formats is the default.
func (o *outputOptions) addFlags(cmd *cobra.Command, formats ...string) {
	o.formats = formats
	cmd.Flags().StringVarP(&o.format, "output", "o", formats[0], "`format` of the output: "+strings.Join(formats, ", "))
	completeWords(cmd, "output", formats...)
}

// check returns an error for a format that the command does not have.
// A command calls it before it does any work.
func (o *outputOptions) check() error {
	if !slices.Contains(o.formats, o.format) {
		return usageError{fmt.Errorf("--output %q: must be one of %s", o.format, strings.Join(o.formats, ", "))}
	}
	return nil
}

// write writes the answer as JSON or YAML, or calls text for the text format.
// answer needs JSON tags for both machine formats: YAML is made from its JSON.
func (o *outputOptions) write(to io.Writer, answer any, text func(io.Writer) error) error {
	switch o.format {
	case "json":
		e := json.NewEncoder(to)
		e.SetIndent("", "  ")
		// The answers have texts such as "->", which stay readable.
		e.SetEscapeHTML(false)
		return e.Encode(answer)
	case "yaml":
		data, err := yaml.Marshal(answer)
		if err != nil {
			return fmt.Errorf("answer as YAML: %w", err)
		}
		_, err = to.Write(data)
		return err
	}
	return text(to)
}
