package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/command"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./hack/man DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := command.Root("")
	root.DisableAutoGenTag = true // equal sources give equal pages
	return doc.GenManTree(root, &doc.GenManHeader{Section: "8", Source: root.Name(), Manual: "MultiNetworkPolicy"}, dir)
}
