package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// nodeName is the node of the agent, and of the pods with network namespaces.
const nodeName = "node-1"

// Listeners of the agent, on loopback of the rig's network namespace.
const (
	metricsAddress = "127.0.0.1:10349"
	healthAddress  = "127.0.0.1:10356"
)

// The kubelet's probe of the agent's life, as the DaemonSet sets it, only more often.
// The patience is the same, so an agent that is too busy to answer in time counts as dead.
const (
	probePeriod   = time.Second
	probePatience = 5 * time.Second
)

// restartPause is the time after which the kubelet starts a container that ended.
const restartPause = time.Second

// agent is the agent as a process. Like the kubelet, it starts an agent that ended by itself.
// dir has the agent's binary and its log
type agent struct {
	dir      string
	launcher *launcher
	// group is the memory cgroup, which survives restarts of the agent
	group *group
	limit int64 // memory of the DaemonSet
	// args is the command line, env what it has beyond the environment of the rig
	args []string
	env  []string

	mu      sync.Mutex
	process *process // nil: stopped
	// since the last call of takeHealth, like the two fields below
	deaths []string // how agents ended that nobody killed
	// badProbes counts probes that failed; the kubelet restarts a container after several of them
	badProbes int
	slowest   time.Duration // probe
}

// daemonSetMemory reads the memory limit and the environment variable GOMEMLIMIT of the agent.
// The attacks must use the numbers of the manifests: with more memory, an attack that kills the agent of a user would
// pass here.
func daemonSetMemory(file string) (limit int64, goLimit string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, "", err
	}
	var d appsv1.DaemonSet
	if err := yaml.Unmarshal(text, &d); err != nil {
		return 0, "", fmt.Errorf("%s: %w", file, err)
	}
	c := d.Spec.Template.Spec.Containers[0]
	for _, e := range c.Env {
		if e.Name == "GOMEMLIMIT" {
			goLimit = e.Value
		}
	}
	memory := c.Resources.Limits.Memory()
	if memory.Cmp(resource.Quantity{}) == 0 || goLimit == "" {
		return 0, "", fmt.Errorf("%s: the agent has no memory limit, or no GOMEMLIMIT", file)
	}
	return memory.Value(), goLimit, nil
}

// newAgent returns an agent that is not started yet.
func newAgent(dir string, l *launcher, g *groups, kubeconfig, runtimeSocket, nriSocket string) (*agent, error) {
	// The numbers are those of the manifest.
	limit, goLimit, err := daemonSetMemory(filepath.Join(dir, "daemonset.yaml"))
	if err != nil {
		return nil, err
	}
	group, err := g.add("agent", limit)
	if err != nil {
		return nil, err
	}
	return &agent{
		// GOMEMLIMIT is below the limit of the cgroup, so the garbage collector works harder before the kernel kills
		// the agent.
		dir: dir, launcher: l, group: group, limit: limit, env: []string{"GOMEMLIMIT=" + goLimit},
		args: []string{
			filepath.Join(dir, "agent"), "--kubeconfig=" + kubeconfig, "--hostname-override=" + nodeName,
			"--container-runtime-endpoint=unix://" + runtimeSocket, "--nri-socket=" + nriSocket,
			"--metrics-bind-address=" + metricsAddress, "--health-bind-address=" + healthAddress, "--enable-pprof",
		},
	}, nil
}

// start starts the agent and returns when it is ready.
func (a *agent) start(ctx context.Context) error {
	if err := a.launch(); err != nil {
		return err
	}
	return eventually(ctx, readyPatience, "the agent is ready", func() error {
		_, err := httpGet(ctx, "http://"+healthAddress+"/readyz", probePatience)
		return err
	})
}

// launch starts the process without waiting until it is ready.
func (a *agent) launch() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := a.launcher.start(a.dir, command{name: "agent", group: a.group, env: a.env, args: a.args})
	a.process = p
	return err
}

// kill ends the agent with SIGKILL.
// Nothing is saved or cleaned up then, as after a crash. supervise does not start an agent that was killed by this
// method.
func (a *agent) kill() {
	a.mu.Lock()
	p := a.process
	a.process = nil
	a.mu.Unlock()
	p.kill()
}

// supervise probes the agent and starts an agent that ended by itself, until the context ends.
func (a *agent) supervise(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		p := a.process
		a.mu.Unlock()
		// An agent that ended by itself is a broken bound, but the attack goes on: the victim shows how much the loss
		// hurts.
		if p != nil && p.hasEnded() {
			a.mu.Lock()
			a.deaths = append(a.deaths, p.why())
			a.mu.Unlock()
			pause(ctx, restartPause)
			if err := a.launch(); err != nil {
				return
			}
		}
		if p != nil {
			a.probe(ctx)
		}
		pause(ctx, probePeriod)
	}
}

// probe asks the agent's health listener once. It counts only answers of a running process.
func (a *agent) probe(ctx context.Context) {
	start := time.Now()
	_, err := httpGet(ctx, "http://"+healthAddress+"/livez", probePatience)
	took := time.Since(start)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process == nil || a.process.hasEnded() || ctx.Err() != nil {
		return
	}
	a.slowest = max(a.slowest, took)
	// While the agent starts, it listens on nothing.
	if err != nil && (took >= probePatience || !isRefused(err)) {
		a.badProbes++
	}
}

// isRefused reports whether nobody listens.
func isRefused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "connection refused")
}

// health is how an agent fared since the last call.
// The report adds it to the row of an attack.
type health struct {
	deaths    []string
	badProbes int
	slowest   time.Duration
}

// takeHealth returns the health since its last call, and starts a new count.
func (a *agent) takeHealth() health {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := health{slices.Clone(a.deaths), a.badProbes, a.slowest}
	a.deaths, a.badProbes, a.slowest = nil, 0, 0
	return h
}

// logFile returns the path of the log.
func (a *agent) logFile() string { return filepath.Join(a.dir, "agent.log") }

// left is the resources that an agent holds for the objects that it knows.
// An agent that keeps either for deleted objects would fill up by an attack that is repeated.
type left struct{ goroutines, descriptors int }

// left reads the numbers from the agent's metrics.
func (a *agent) left(ctx context.Context) (l left, err error) {
	text, err := httpGet(ctx, "http://"+metricsAddress+"/metrics", 10*time.Second)
	if err != nil {
		return l, err
	}
	// The metrics are lines of a name and a number, such as "go_goroutines 42".
	for line := range strings.Lines(text) {
		var n float64
		if scan, err := fmt.Sscanf(line, "go_goroutines %g", &n); scan == 1 && err == nil {
			l.goroutines = int(n)
		}
		if scan, err := fmt.Sscanf(line, "process_open_fds %g", &n); scan == 1 && err == nil {
			l.descriptors = int(n)
		}
	}
	if l.goroutines == 0 || l.descriptors == 0 {
		return l, errors.New("the metrics of the agent lack the number of goroutines or descriptors")
	}
	return l, nil
}

// saveProfiles writes a CPU profile of the next seconds and a heap profile.
// The files are dir/name.cpu.pprof and dir/name.heap.pprof. It takes the length of the CPU profile.
func (a *agent) saveProfiles(ctx context.Context, dir, name string, length time.Duration) error {
	for kind, query := range map[string]string{"cpu": fmt.Sprintf("profile?seconds=%d", int(length.Seconds())), "heap": "heap"} {
		text, err := httpGet(ctx, "http://"+metricsAddress+"/debug/pprof/"+query, length+30*time.Second)
		if err != nil {
			return fmt.Errorf("%s profile of the agent: %w", kind, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"."+kind+".pprof"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// httpGet returns the body of an answer. An answer that is not a success is an error.
// patience bounds the whole request, reading included.
func httpGet(ctx context.Context, url string, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// pause waits, or returns when the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
