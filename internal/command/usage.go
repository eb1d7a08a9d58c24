package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/spelling"
)

// usageError is the error for an invalid command line: the exit code is 2, as for errors of flags.
type usageError struct{ error }

// Unwrap returns the error for errors.Is.
func (e usageError) Unwrap() error { return e.error }

// troubleError is an error of a command whose exit code 1 is an answer: the exit code is 2, as that of diff.
type troubleError struct{ error }

// Unwrap returns the error for errors.Is.
func (e troubleError) Unwrap() error { return e.error }

// noArgs is the check of a command without arguments. It suggests the subcommand that a misspelled argument likely means.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if len(names) == 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0])}
	}
	return usageError{fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), didYouMean(args[0], names))}
}

// didYouMean returns the end of an error about a wrong name, with the name that was likely meant; or nothing.
func didYouMean(wrong string, names []string) string {
	if best := spelling.Nearest(wrong, names); best != "" {
		return ", did you mean " + best + "?"
	}
	return ""
}

// flagError returns the usage error for an error of pflag, in the words of the command line: the text of pflag has the names of Go's
// functions.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		return usageError{fmt.Errorf("--%s %q: %s", f.Name, invalid.GetValue(), valueWords(f, invalid.Unwrap()))}
	case errors.As(err, &missing):
		return usageError{fmt.Errorf("--%s: the value is missing", missing.GetFlag().Name)}
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return usageError{fmt.Errorf("unknown flag -%s", unknown.GetSpecifiedName())}
	case errors.As(err, &unknown):
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		suggestion := spelling.Nearest(unknown.GetSpecifiedName(), names)
		if suggestion != "" {
			suggestion = ", did you mean --" + suggestion + "?"
		}
		return usageError{fmt.Errorf("unknown flag --%s%s", unknown.GetSpecifiedName(), suggestion)}
	}
	return usageError{err}
}

// valueWords returns the reason why a value does not fit a flag.
// The values of this package have reasons of their own; the values of pflag and klog have errors of Go's parsers.
func valueWords(f *pflag.Flag, cause error) string {
	switch f.Value.Type() {
	case "bool":
		return "must be true or false"
	case "uint8":
		return "must be a number from 0 to 255"
	case "uint16":
		return "must be a number from 0 to 65535"
	case "uint32", "int", "Level", "level", "int32":
		return "must be a number"
	case "duration":
		return "must be a duration such as 90s or 5m"
	}
	if f.Name == "v" {
		return "must be a number"
	}
	if f.Name == "vmodule" {
		return "must be a list of PATTERN=N"
	}
	return strings.TrimPrefix(cause.Error(), "strconv.")
}
