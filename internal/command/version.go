package command

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionAnswer is the output of version.
type versionAnswer struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// newVersion returns the command version.
func newVersion(p Program) *cobra.Command {
	var output outputOptions
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Prints the version",
		Example: p.examples("version", "version -o json"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			a := versionAnswer{Version: p.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			return output.write(cmd.OutOrStdout(), a, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s %s (%s, %s/%s)\n", p.name(), a.Version, a.Go, a.OS, a.Arch)
				return err
			})
		},
	}
	output.addFlags(cmd, "text", "json", "yaml")
	return cmd
}

// versionText returns the given version, or else the revision or version that the Go build recorded.
func versionText(given string) string {
	if given != "" {
		return given
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	// A build from a checkout knows its revision, a build by "go install …@v1.2.3" only its version.
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && s.Value != "" {
			return s.Value
		}
	}
	if info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
