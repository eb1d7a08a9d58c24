package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/kustomize"
)

func main() {
	root := flag.String("root", ".", "the project's folder")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, filepath.Join(*root, "manifests")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run checks the manifests, and prints the number of checks.
func run(ctx context.Context, manifests string) (err error) {
	start := time.Now()
	dir, err := os.MkdirTemp("", "apply-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := apiserver.Start(ctx, dir, "--authorization-mode=RBAC")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	a, err := prepare(ctx, server.Config(apiserver.Token))
	if err != nil {
		return err
	}
	// The folder says which components exist, so a new component is checked without a change here.
	names, err := kustomize.Components(manifests)
	if err != nil {
		return err
	}
	all := kustomize.Combinations(names)
	// All errors are reported: a mistake in a component shows in each of its pairs.
	var errs []error
	for _, components := range all {
		objects, err := kustomize.Build(manifests, components, nil)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := a.check(ctx, o); err != nil {
				errs = append(errs, fmt.Errorf("components %q: %w", components, err))
			}
		}
	}
	if err := checkColumns(ctx, a, server.Config(apiserver.Token), manifests); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	fmt.Printf("ok   %d combinations of %d components, %d different objects of %d kinds, columns of %d policies (%.1f s)\n",
		len(all), len(names), len(a.seen), len(a.kinds), len(columnCases), time.Since(start).Seconds())
	return nil
}

// prepare stores the objects on which dry runs of the others depend: the CRDs of other projects, and the namespace.
func prepare(ctx context.Context, config *rest.Config) (*applier, error) {
	a, err := newApplier(config)
	if err != nil {
		return nil, err
	}
	crds, err := foreignCRDs(ctx)
	if err != nil {
		return nil, err
	}
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "multi-networkpolicy-system"}}
	for _, o := range append(crds, namespace) {
		if err := a.apply(ctx, o, false); err != nil {
			return nil, err
		}
	}
	for _, crd := range crds {
		if err := a.waitServed(ctx, crd); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// check applies an object in a dry run, unless an equal object was checked before. For the first object of a kind, it checks that
// the server refuses a field that does not exist.
func (a *applier) check(ctx context.Context, o map[string]any) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if a.seen[string(text)] {
		return nil
	}
	a.seen[string(text)] = true
	kind, _ := o["kind"].(string)
	if err := a.apply(ctx, o, true); err != nil {
		return err
	}
	if a.kinds[kind] {
		return nil
	}
	a.kinds[kind] = true
	o["misspelled"] = true
	if a.apply(ctx, o, true) == nil {
		return fmt.Errorf("the API server accepts an unknown field in a %s", kind)
	}
	return nil
}
