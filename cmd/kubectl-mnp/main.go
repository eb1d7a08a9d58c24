package main

import (
	"io"
	"os"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/command"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/kustomize"
)

// version is set by the linker in releases.
var version string

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run runs the plugin and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := command.Program{Version: version, IsPlugin: true, Kustomize: kustomize.Build}
	return p.Main(args, stdin, stdout, stderr)
}
