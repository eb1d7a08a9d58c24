package main

import (
	"os"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/command"
)

// version is set by the linker in releases.
var version string

func main() { os.Exit(command.Main(version, os.Args[1:], os.Stdout, os.Stderr)) }
