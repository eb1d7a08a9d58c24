package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// loggingOptions are the flags of the log. They apply to the program and to the Kubernetes libraries in it, which log by klog.
// The zero value has no flag set; addFlags must come first.
type loggingOptions struct {
	klog   *flag.FlagSet // klog's own flags; it also holds their values
	format string        // text or json
}

// addFlags adds the flags of klog that are useful here. klog has many others, for its own files.
// The flags are persistent, so each subcommand has them.
func (o *loggingOptions) addFlags(flags *pflag.FlagSet) {
	o.klog = flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(o.klog)
	for _, name := range []string{"v", "vmodule"} {
		flags.AddGoFlag(o.klog.Lookup(name))
	}
	flags.StringVar(&o.format, "logging-format", "text", "format of the log: text or json")
}

// setUp configures klog and returns a context with the logger.
// The logger must be set before any goroutine logs, because klog's logger is global.
// An unknown format is a usage error. In the text format, klog writes to the standard error of the process.
func (o *loggingOptions) setUp(ctx context.Context, stderr io.Writer) (context.Context, error) {
	switch o.format {
	case "text":
	case "json":
		verbosity, err := strconv.Atoi(o.klog.Lookup("v").Value.String())
		if err != nil {
			return ctx, fmt.Errorf("flag -v: %w", err)
		}
		// klog's verbosity n is slog's level -n.
		options := &slog.HandlerOptions{Level: slog.Level(-verbosity)}
		klog.SetSlogLogger(slog.New(slog.NewJSONHandler(stderr, options)))
	default:
		return ctx, usageError{fmt.Errorf("--logging-format %q: must be text or json", o.format)}
	}
	return logr.NewContext(ctx, klog.Background()), nil
}
