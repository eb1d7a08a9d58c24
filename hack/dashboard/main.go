package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Files, below the root of the repository.
const (
	dashboardFile = "manifests/components/prometheus/dashboard.json"
	seriesFile    = "hack/dashboard/testdata/series.json"
	pictureFile   = "docs/dashboard.svg"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "record":
		err = record(ctx)
	case len(os.Args) == 2 && os.Args[1] == "draw":
		err = draw(".")
	default:
		fmt.Fprintln(os.Stderr, "usage: go run ./hack/dashboard record|draw")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

// draw writes the picture of the repository below root.
func draw(root string) error {
	picture, err := picture(root)
	if err != nil {
		return err
	}
	return os.WriteFile(root+"/"+pictureFile, []byte(picture), 0o644)
}
