package command

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/lab"
)

// The demo's manifests: what is there at first, what comes then, and what is expected of it.
//
//go:embed demo
var demoFiles embed.FS

const (
	demoNode    = "demo" // all pods of the manifests run there
	demoRender  = "web"  // the pod whose table is printed
	demoPatient = 30 * time.Second
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Enforces example policies between network namespaces on this machine, and shows what gets through",
		Long: `Makes network namespaces that stand for pods, joins them by a bridge, feeds example manifests to the agent's own
informers, cache and nftables engine, and sends real packets between all of them, before and after the policies.
It needs no cluster, and no root where user namespaces are allowed. It leaves nothing behind.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			code, done, err := lab.Reexec()
			switch {
			case err != nil:
				return fmt.Errorf("the demo needs network namespaces: %w", err)
			case done && code == 0:
				return nil
			case done:
				return exitCode(code)
			}
			// The agent's log, which tells of every change, would run through the tables: -v=1 shows it.
			ctx := logr.NewContext(cmd.Context(), logr.FromContextOrDiscard(cmd.Context()).V(1))
			return runDemo(ctx, cmd.OutOrStdout())
		},
	}
}

// demo is a cluster of one node, in which pods are the hosts of a lab.
type demo struct {
	out       io.Writer
	unprinted error
	expected  *expectation
	open      informers.Manifests // the cluster without policies
	selecting informers.Manifests // and with them
	files     *informers.Files
	state     *countingSink
	agent     *reconciler
	pods      []*demoPod
}

func runDemo(ctx context.Context, out io.Writer) error {
	d := &demo{out: out}
	if err := d.load(); err != nil {
		return fmt.Errorf("the demo's files: %w", err)
	}
	return d.run(ctx)
}

func (d *demo) run(ctx context.Context) (err error) {
	network, err := lab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	if err := d.start(ctx, network); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	p, err := d.pipeline(ctx)
	if err != nil {
		return err
	}
	running.Go(func() { p.run(ctx) })
	err = d.play(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing is left behind")
	}
	return err
}

func (d *demo) load() (err error) {
	cluster, err := fs.Sub(demoFiles, "demo/cluster")
	if err != nil {
		return err
	}
	policies, err := fs.Sub(demoFiles, "demo/policies")
	if err != nil {
		return err
	}
	text, err := fs.ReadFile(demoFiles, "demo/expected.txt")
	if err != nil {
		return err
	}
	if d.expected, err = parseExpectation(string(text)); err != nil {
		return err
	}
	if d.open, err = informers.ReadFS(cluster); err != nil {
		return err
	}
	if d.selecting, err = informers.ReadFS(cluster, policies); err != nil {
		return err
	}
	d.files = informers.NewFiles()
	return d.files.Load(d.open)
}

// pipeline is the agent's own, but for where objects and sandboxes come from.
func (d *demo) pipeline(ctx context.Context) (*pipeline, error) {
	features, err := engine.Probe()
	if err != nil {
		return nil, err
	}
	state := cache.New(cache.Options{Node: demoNode, NetworkPlugins: defaultNetworkPlugins})
	d.agent = newReconciler(state, openEngine(features))
	d.state = &countingSink{Cache: state, notify: d.agent.Notify}
	in, err := informers.New(ctx, informers.Config{
		Source: d.files.Source(), Sink: d.state, Node: demoNode, Notify: d.state.Notify,
	})
	return &pipeline{informers: in, reconciler: d.agent, sandboxes: &demoSandboxes{pods: d.pods, state: d.state}}, err
}

// play is the demo's plot.
func (d *demo) play(ctx context.Context) error {
	if _, err := d.settle(ctx, 0); err != nil {
		return err
	}
	wrong, err := d.show(ctx, "Before: no policies, so everybody reaches everybody", d.expected.without())
	if err != nil {
		return err
	}
	start := time.Now()
	if err := d.files.Load(d.selecting); err != nil {
		return err
	}
	count := d.files.PolicyCount()
	enforced, err := d.settle(ctx, count)
	if err != nil {
		return err
	}
	d.printf("\n%d policies loaded. %d of %d pods are selected; all of them enforced %s later.\n",
		count, d.selected(), len(d.pods), enforced.Sub(start).Round(10*time.Microsecond))
	wrongAfter, err := d.show(ctx, "After: what the policies allow", d.expected)
	if err != nil {
		return err
	}
	if err := d.render(); err != nil {
		return err
	}
	if n := wrong + wrongAfter; n > 0 {
		return fmt.Errorf("%d probes did not come out as expected", n)
	}
	d.printf("\nEvery probe came out as expected.\n")
	return d.unprinted
}

// settle waits until the kernel has acknowledged everything that the policies ask of all pods, and returns when that
// was.
func (d *demo) settle(ctx context.Context, policies int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatient)
	defer cancel()
	for !d.state.has(len(d.pods), policies) || !d.agent.Settled() {
		select {
		case <-time.After(50 * time.Microsecond):
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("the policies were not enforced within %s: %w", demoPatient, ctx.Err())
		}
	}
	return time.Now(), nil
}

// selected is how many pods have a table.
func (d *demo) selected() int {
	n := 0
	for _, p := range d.pods {
		if !d.state.Ruleset(p.key).IsEmpty() {
			n++
		}
	}
	return n
}

// show probes all pairs and prints a table for each service. It returns how many probes surprised.
func (d *demo) show(ctx context.Context, title string, expected *expectation) (int, error) {
	start := time.Now()
	seen := d.probeAll(ctx, expected)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	d.printf("\n%s (%d probes, IPv4 and IPv6, in %s)\n", title, len(seen), time.Since(start).Round(10*time.Millisecond))
	d.printf("%s", seen.tables(expected))
	wrong := seen.surprises(expected)
	for _, s := range wrong {
		d.printf("  not as expected: %s\n", s)
	}
	return len(wrong), nil
}

// render prints the table of one pod.
func (d *demo) render() error {
	for _, p := range d.pods {
		if p.name() != demoRender {
			continue
		}
		d.printf("\nThe table in the network namespace of %s, in nft syntax:\n\n", p.key)
		return engine.Render(d.out, d.state.Ruleset(p.key))
	}
	return fmt.Errorf("no pod %s in the demo's files", demoRender)
}

// printf keeps the first error for the end: all the demo does is print.
func (d *demo) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(d.out, format, args...); d.unprinted == nil {
		d.unprinted = err
	}
}
