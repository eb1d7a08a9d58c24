package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rig is everything that an attack runs on.
// dir has all files of the run: binaries, sockets, logs, manifests
type rig struct {
	dir      string
	options  options
	launcher *launcher
	// The parts in the order of their start.
	server  *apiServer
	runtime *containerRuntime
	agent   *agent
	victim  *victim
	// admin acts for the cluster, evil is the tenant
	admin *client
	evil  *client

	// stops end the parts; stop calls them in reverse order
	stops []func()
}

// runRig runs the attacks and returns the exit code. The supervisor removes all files and processes that remain.
// The report is printed even if the run ends early, with the rows so far.
func runRig(ctx context.Context, dir string, o options, chosen []attack) int {
	r := &rig{dir: dir, options: o}
	rows, err := r.run(ctx, chosen)
	r.stop()
	text := table(rows)
	fmt.Println(text)
	if o.out != "" {
		err = errors.Join(err, os.WriteFile(o.out, []byte(page(rows)), 0o644))
	}
	if o.keepLogs != "" {
		err = errors.Join(err, r.copyLogs(o.keepLogs))
	}
	// The last lines say why the run fails: the report is long, and whoever looks at a failure sees its end first.
	broken := brokenRows(rows)
	fmt.Fprint(os.Stderr, broken)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || broken != "" {
		return 1
	}
	return 0
}

// run sets up the rig, then runs the attacks in order. An attack that breaks only times runs a second time.
func (r *rig) run(ctx context.Context, chosen []attack) ([]*row, error) {
	if err := r.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	go r.agent.supervise(ctx)
	var rows []*row
	for i, a := range chosen {
		// Other programs on the machine can break a bound on a time, but hardly twice.
		for try := range 2 {
			start := time.Now()
			x, err := r.attack(ctx, a)
			if err != nil {
				return rows, fmt.Errorf("%s: %w", a.name, err)
			}
			x.took = time.Since(start)
			x.repeated = try == 0 && len(x.broken) > 0 && x.onlyTimes
			rows = append(rows, x)
			fmt.Fprintf(os.Stderr, "%2d/%d %-22s %5.1f s (start %.1f s, undo %.1f s)  %s\n", i+1, len(chosen), a.name,
				x.took.Seconds(), x.startTook.Seconds(), x.undoTook.Seconds(), x.verdict())
			if !x.repeated {
				break
			}
		}
	}
	// At the end, so that the CRD of the attacks is not disturbed.
	return rows, r.tryShipped(ctx, rows)
}

// setUp starts everything, and returns when the victim's policies are enforced.
func (r *rig) setUp(ctx context.Context) error {
	g, err := openGroups(filepath.Base(r.dir))
	if err != nil {
		return err
	}
	// The rig itself is in a cgroup too: large objects of the attacks are built here.
	own, err := g.add("rig", rigMemory)
	if err != nil {
		return err
	}
	if err := os.WriteFile(own.procs(), []byte("0"), 0); err != nil {
		return err
	}
	if err := isolate(); err != nil {
		return err
	}
	r.launcher = newLauncher()
	// The server may have started some of its processes when it fails, so stop is noted before the error is looked
	// at.
	// The order is that of a cluster: API server, runtime, objects, agent.
	r.server, err = startAPIServer(ctx, r.launcher, g, r.dir)
	r.stops = append(r.stops, r.server.stop)
	if err != nil {
		return err
	}
	if r.runtime, err = newContainerRuntime(r.dir); err != nil {
		return err
	}
	r.stops = append(r.stops, r.runtime.stop)
	if err := r.fillCluster(ctx); err != nil {
		return err
	}
	kubeconfig, err := r.server.kubeconfig(agentUser)
	if err != nil {
		return err
	}
	if r.agent, err = newAgent(r.dir, r.launcher, g, kubeconfig, r.runtime.criSocket(), r.runtime.nriSocket()); err != nil {
		return err
	}
	r.stops = append(r.stops, r.agent.kill)
	if err := r.startAgent(ctx); err != nil {
		// The log of an agent that does not start is the only hint; it is removed with the directory.
		return fmt.Errorf("%w\n%s", err, tail(r.agent.logFile()))
	}
	r.victim.forgetArrivals() // of the time without an agent
	return nil
}

// isolate makes loopback work in the network namespace of the rig, and keeps mounts in its mount namespace.
// Without private mounts, the paths of network namespaces would appear on the machine and outlive the rig.
func isolate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// fillCluster makes the CRDs, the users' rights, the namespaces and the victim.
func (r *rig) fillCluster(ctx context.Context) error {
	var err error
	if r.admin, err = r.server.client(adminUser); err != nil {
		return err
	}
	if r.evil, err = r.server.client(tenantUser); err != nil {
		return err
	}
	user, err := r.server.client(victimUser)
	if err != nil {
		return err
	}
	for _, ns := range append([]string{victimNamespace, "multi-networkpolicy-system"}, evilNamespaces...) {
		if err := createNamespace(ctx, r.admin, ns); err != nil {
			return fmt.Errorf("namespace %s: %w", ns, err)
		}
	}
	// The RBAC of the manifests, so that an agent that needs more rights than users give it fails here.
	if err := r.apply(ctx, "rbac.yaml"); err != nil {
		return err
	}
	if err := r.writeOpenCRD(); err != nil {
		return err
	}
	for _, file := range []string{"nad-crd.yaml", publishedCRD} {
		if err := r.applyCRD(ctx, file); err != nil {
			return err
		}
	}
	err = eventually(ctx, 30*time.Second, "the custom resources are served", func() error {
		_, err1 := user.get(ctx, pathOf(policies, victimNamespace))
		_, err2 := user.get(ctx, pathOf(nads, victimNamespace))
		return errors.Join(err1, err2)
	})
	if err != nil {
		return err
	}
	// The victim exists before the agent starts, so all of its pods are open until then.
	r.victim, err = newVictim(ctx, r.admin, user, r.runtime)
	if r.victim != nil {
		r.stops = append(r.stops, func() { r.victim.close() }) //nolint:errcheck // the process ends
	}
	return err
}

// startAgent starts the agent, and returns when it is ready, connected to NRI, and has brought the tables up to date.
func (r *rig) startAgent(ctx context.Context) error {
	if err := r.agent.start(ctx); err != nil {
		return err
	}
	return eventually(ctx, readyPatience, "the agent is a plugin of the runtime", func() error {
		if n := r.runtime.nri.Plugins(); n != 1 {
			return fmt.Errorf("the runtime has %d plugins", n)
		}
		return nil
	})
}

// stop may be called more than once.
func (r *rig) stop() {
	for len(r.stops) > 0 {
		last := r.stops[len(r.stops)-1]
		r.stops = r.stops[:len(r.stops)-1]
		last()
	}
}

// copyLogs keeps the logs of the processes.
func (r *rig) copyLogs(dir string) error {
	logs, err := filepath.Glob(filepath.Join(r.dir, "*.log"))
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(dir, 0o755)}
	for _, log := range logs {
		errs = append(errs, copyFile(filepath.Join(dir, filepath.Base(log)), log, 0o644))
	}
	return errors.Join(errs...)
}

// tail returns the end of a file.
// It is for an error message: the last 4,000 bytes.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
