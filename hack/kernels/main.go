package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tools are the commands that this program starts, each with its Debian package.
var tools = []string{"qemu-system-x86_64=qemu-system-x86", "busybox=busybox-static", "xz=xz-utils"}

// options are the flags.
type options struct {
	kernels  string   // versions, separated by commas
	packages []string // patterns, as go list takes them
	tests    testFlags
	machine  machine
	cache    string // directory of the downloaded kernels
	logs     string // directory of the logs
}

// testFlags choose tests inside a package, as the flags of go test with these names do.
type testFlags struct {
	run, skip string
	args      string // more arguments of the test binaries, separated by blanks
	timeout   time.Duration
}

// parseOptions reads the flags. All packages are the default, because only packages with kernel tests are run.
func parseOptions() (*options, error) {
	var o options
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	flag.StringVar(&o.kernels, "kernels", strings.Join(versions(), ","), "versions of the kernels, separated by commas")
	flag.StringVar(&o.tests.run, "run", "", "run only the tests whose names match the regular expression")
	flag.StringVar(&o.tests.skip, "skip", "", "skip the tests whose names match the regular expression")
	flag.StringVar(&o.tests.args, "args", "", "more arguments of the tests, separated by blanks")
	flag.DurationVar(&o.tests.timeout, "timeout", 20*time.Minute, "time for the tests of one package")
	flag.DurationVar(&o.machine.limit, "limit", time.Hour, "time for all packages on one kernel")
	flag.IntVar(&o.machine.cpus, "cpus", 2, "CPUs of the virtual machine")
	flag.IntVar(&o.machine.memory, "memory", 3072, "memory of the virtual machine, in MiB")
	flag.StringVar(&o.cache, "cache", filepath.Join(cache, "multi-networkpolicy-nftables", "kernels"),
		"directory for downloaded kernels; delete it to get newer kernels")
	flag.StringVar(&o.logs, "logs", filepath.Join("bin", "kernels"), "directory for the logs")
	flag.Parse()
	if o.packages = flag.Args(); len(o.packages) == 0 {
		o.packages = []string{"./..."}
	}
	return &o, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o, err := parseOptions()
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "hack/tools.sh", tools...).CombinedOutput(); err != nil {
		return fmt.Errorf("hack/tools.sh, from the root of the repository: %w\n%s", err, out)
	}
	work, err := os.MkdirTemp("", "kernels")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary directory
	suites, err := buildSuites(ctx, o.packages, filepath.Join(work, "tests"))
	if err != nil {
		return err
	}
	// A kernel that fails does not end the run: the table shows the others.
	var t table
	for _, version := range strings.Split(o.kernels, ",") {
		results, err := o.onKernel(ctx, version, suites, work)
		t.add(version, results, err)
	}
	fmt.Print(t.String())
	if t.failed() {
		return errors.New("not every package passed on every kernel")
	}
	return nil
}

// onKernel runs the suites under one kernel. If it returns an error, the results contain the suites that ended before.
func (o *options) onKernel(ctx context.Context, version string, suites []suite, work string) ([]result, error) {
	k, err := getKernel(ctx, o.cache, version)
	if err != nil {
		return nil, err
	}
	// The image of the last kernel is overwritten.
	image := filepath.Join(work, "initramfs")
	if err := writeImage(ctx, image, k, suites, o.tests); err != nil {
		return nil, fmt.Errorf("write the initramfs: %w", err)
	}
	logs := filepath.Join(o.logs, version)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	listener := &listener{ctx: ctx, kernel: version, logs: logs}
	err = o.machine.boot(ctx, k.image, image, filepath.Join(logs, "console.log"), listener)
	return listener.results, errors.Join(err, listener.missing(suites))
}
