package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// files holds the manifests of the cluster, the policies that the demo adds later, and the expected verdicts.
//
//go:embed files
var files embed.FS

const (
	node        = "demo"           // the node of all pods in the manifests
	renderedPod = "web"            // the demo prints the table of this pod
	patience    = 30 * time.Second // limit for the enforcement of the policies
)

// demo is a cluster of a single node, with the hosts of a lab as its pods.
// Everything but the kubelet, Multus, the API server and the container runtime is the code of the product.
type demo struct {
	out io.Writer
	// printErr is the first error of out. All output goes through printf, which keeps it for the end.
	printErr  error
	expected  *expectation        // the expected verdicts with the policies
	open      informers.Manifests // the cluster without policies
	selecting informers.Manifests // the cluster with policies
	// files is the source of the informers; Load replaces its objects, as a change in the cluster does
	files *informers.Files
	state *cache.Cache
	// agent is only the reconciler of the agent; the demo has no metrics and no API server.
	agent *reconciler.Reconciler
	pods  []*pod
}

// Run runs the demo and prints it. It needs permission to make network namespaces, see lab.Reexec. It returns an error if the
// demo fails, or if a probe has an unexpected verdict.
// A context that ends interrupts the demo, and the namespaces are removed all the same.
func Run(ctx context.Context, out io.Writer) error {
	d := &demo{out: out}
	if err := d.load(); err != nil {
		return fmt.Errorf("the demo's files: %w", err)
	}
	return d.run(ctx)
}

// run makes the pods, starts the agent's pipeline, and plays the demo. It removes everything at its end.
func (d *demo) run(ctx context.Context) (err error) {
	network, err := lab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	if err := d.start(ctx, network); err != nil {
		return err
	}
	// The context ends the pipeline, whether play succeeds or not.
	ctx, cancel := context.WithCancel(ctx)
	// The deferred calls run in reverse order: cancel, wait for the pipeline, then remove the network namespaces.
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	p, err := d.pipeline(ctx)
	if err != nil {
		return err
	}
	running.Go(func() { p.Run(ctx) })
	err = d.play(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing is left behind")
	}
	return err
}

// load reads the embedded files.
// An error is a fault of the build, as the files are part of the program.
func (d *demo) load() (err error) {
	cluster, err := fs.Sub(files, "files/cluster")
	if err != nil {
		return err
	}
	policies, err := fs.Sub(files, "files/policies")
	if err != nil {
		return err
	}
	text, err := fs.ReadFile(files, "files/expected.txt")
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

// pipeline returns the pipeline of the agent, with other sources of objects and sandboxes.
// It must run until the context ends. No event and no metric leaves it, as it has neither API server nor listener.
func (d *demo) pipeline(ctx context.Context) (*agent.Pipeline, error) {
	features, err := engine.Probe()
	if err != nil {
		return nil, err
	}
	options := cache.Options{Node: node, NetworkPlugins: cache.DefaultNetworkPlugins()}
	options.Bridge, _ = agent.ProbeBridge(options) //nolint:errcheck // the cause does not matter: no pod of the demo has a bridge
	d.state = cache.New(options)
	d.agent = reconciler.New(d.state, reconciler.OpenNamespace(features), reconciler.BudgetOf(d.state.Limits()), nil)
	settings := informers.Settings{Node: node, Limits: d.state.Limits()}
	in := informers.New(ctx, informers.Config{
		Source: d.files.Source(settings), Sink: d.state, Settings: settings, Notify: d.agent.Notify,
	})
	return &agent.Pipeline{Informers: in, Reconciler: d.agent, Sandboxes: &sandboxes{demo: d}}, nil
}

// play probes without policies, loads the policies, waits for their enforcement, probes again, and prints a table.
// The probes before the policies show that a drop later is the work of a policy.
// It ends with the table of a pod, so that the reader sees how little is in it.
func (d *demo) play(ctx context.Context) error {
	if _, err := d.settle(ctx, 0); err != nil {
		return err
	}
	wrong, err := d.show(ctx, "Before: no policies, so everybody reaches everybody", d.expected.without())
	if err != nil {
		return err
	}
	start := time.Now()
	// The reader sees the time from here to the acknowledgement of the last table.
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
	return d.printErr
}

// settle waits until the cache has this number of policies and the kernel has acknowledged all tables. It returns the time of the
// acknowledgement.
func (d *demo) settle(ctx context.Context, policies int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !d.isSettled(policies) {
		select {
		// A short pause, since the time of the enforcement is printed.
		case <-time.After(50 * time.Microsecond):
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("the policies were not enforced within %s: %w", patience, ctx.Err())
		}
	}
	return time.Now(), nil
}

// isSettled reports whether the condition of settle holds now.
// A cache that has all objects is not enough: the kernel must have acknowledged each table that follows from them.
func (d *demo) isSettled(policies int) bool {
	s := d.state.Stats()
	if s.LocalPods != int64(len(d.pods)) || s.Policies != int64(policies) {
		return false
	}
	d.agent.Notify() // queues changes of the cache that are not queued yet
	return d.agent.Settled()
}

// ruleset returns the table of a pod.
// A pod that no policy selects has an empty ruleset.
func (d *demo) ruleset(p *pod) engine.Ruleset {
	target, _ := d.state.Target(p.id)
	return target.Tables[engine.Inet]
}

// selected returns the number of pods with a table.
func (d *demo) selected() int {
	n := 0
	for _, p := range d.pods {
		if !d.ruleset(p).IsEmpty() {
			n++
		}
	}
	return n
}

// show probes all pairs of pods and prints a table for each service. It returns the number of unexpected verdicts.
// A context that ends while probes wait is an error, since their results mean nothing.
func (d *demo) show(ctx context.Context, title string, expected *expectation) (int, error) {
	start := time.Now()
	seen := d.probeAll(ctx, expected)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	d.printf("\n%s (%d probes, IPv4 and IPv6, in %s)\n", title, len(seen), time.Since(start).Round(10*time.Millisecond))
	d.printf("%s", seen.tables(expected))
	wrong := seen.unexpected(expected)
	for _, s := range wrong {
		d.printf("  not as expected: %s\n", s)
	}
	return len(wrong), nil
}

// render prints the nftables table of renderedPod.
func (d *demo) render() error {
	for _, p := range d.pods {
		if p.name() != renderedPod {
			continue
		}
		d.printf("\nThe table in the network namespace of %s, in nft syntax:\n\n", p.id.Key)
		return engine.Render(d.out, engine.Inet, d.ruleset(p))
	}
	return fmt.Errorf("no pod %s in the demo's files", renderedPod)
}

// printf prints, and keeps the first error for the end of the demo.
func (d *demo) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(d.out, format, args...); d.printErr == nil {
		d.printErr = err
	}
}
