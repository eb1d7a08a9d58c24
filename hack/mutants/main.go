package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fastPackages have tests that take seconds.
// A mutant costs at least a run of the tests of its package, so slow packages are left out by default.
const fastPackages = "./sets ./expr/... ./engine/... ./cache/... ./informers/... ./internal/reconciler"

// timed are tests with time limits. On a busy machine they fail without a mutant.
const timed = "IsLinear$|CostNothing$"

// memory limits each process, since a mutant may allocate without end.
const memory = 8 << 30

// options are the flags of the command.
type options struct {
	dir      string // inside the module
	packages []string
	count    int
	seed     uint64
	limit    time.Duration // for each run of the tests of a package
}

func main() {
	o := options{dir: "."}
	flag.IntVar(&o.count, "n", 100, "number of mutants")
	flag.Uint64Var(&o.seed, "seed", 1, "seed that selects the places")
	flag.DurationVar(&o.limit, "limit", 2*time.Minute, "time limit of the tests of a package")
	flag.Parse()
	if o.packages = flag.Args(); len(o.packages) == 0 {
		o.packages = strings.Fields(fastPackages)
	}
	err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: memory, Max: memory})
	if err == nil {
		err = run(os.Stdout, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// run prints a row for each mutant, and then the sums.
// It first runs all tests without a mutant: a test that fails anyway would notice every mutant. Mutants that do not
// compile are not counted.
func run(w io.Writer, o options) error {
	packages, err := o.list()
	if err != nil {
		return err
	}
	var places []place
	for _, p := range packages {
		if places, err = p.appendPlaces(places); err != nil {
			return err
		}
		start := time.Now()
		if test, err := p.test(o, ""); err != nil || test != "" {
			return errors.Join(fmt.Errorf("without a mutant, %q fails in %s", test, p.ImportPath), err)
		}
		p.duration = time.Since(start)
	}
	// Importers with fast tests run first, since one failure is enough.
	slices.SortStableFunc(packages, func(a, b *goPackage) int { return cmp.Compare(a.duration, b.duration) })
	// The seed chooses the same places again as long as the sources are the same.
	rand.New(rand.NewPCG(o.seed, 0)).Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	var own, importers, survivors int
	for _, m := range places {
		if own+importers+survivors == o.count {
			break
		}
		tester, test, err := m.try(o, packages)
		if errors.Is(err, errNotCompiled) {
			continue
		} else if err != nil {
			return err
		}
		// own and importers say whose tests noticed the mutant.
		switch tester {
		case m.pkg:
			own++
		case nil:
			survivors++
			test = "SURVIVES"
		default:
			importers++
			test = tester.name() + " " + test
		}
		_, err = fmt.Fprintf(w, "%s/%s:%d  %s  =>  %s  %s\n", m.pkg.name(), m.file, m.line, brief(m.text), brief(m.broken), test)
		if err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "noticed by tests of the package: %d, of its importers: %d, survivors: %d\n", own, importers, survivors)
	return err
}

// brief returns a piece of code as one short line.
// It is at most 60 characters long.
func brief(code string) string {
	words := []rune(strings.Join(strings.Fields(code), " "))
	return string(words[:min(len(words), 60)])
}
