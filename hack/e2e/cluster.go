package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	programName = "multi-networkpolicy-nftables" // name of the program, the DaemonSet and the service account
	agentImage  = "local.test/agent:e2e"         // as in image/kustomization.yaml; in no registry
	testVersion = "v0.0.0-e2e"                   // of the release that is built and installed
	probeImage  = "local.test/probe:1"           // built from hack/probe; in no registry

	quickStartImage = "docker.io/library/busybox:1.37" // as in manifests/examples/quick-start.yaml
	namespace       = "multi-networkpolicy-system"     // of the agent
	agentLabel      = "app.kubernetes.io/name=multi-networkpolicy-nftables"
)

// The nodes, as hack/cluster names them.
var nodes = []string{"node1", "node2"}

// cluster drives the scripts of hack/cluster.
// The cluster is real: kubelets, containerd and an API server, with the nodes as namespaces on this machine.
type cluster struct {
	root    string // folder of the project
	dir     string // CLUSTER_DIR, see hack/cluster/env.sh
	release string // folder of the release that is installed; empty: an image of hack/image
	// oldAgents is the folder with the programs of the agents from which to migrate; empty: their recorded rules.
	oldAgents string
}

func newCluster(root, oldAgents string) *cluster {
	// In its own folder, so that the test never ends a cluster that a user started.
	dir := filepath.Join(os.TempDir(), "mnp-e2e")
	return &cluster{root: root, dir: dir, oldAgents: oldAgents}
}

// command returns a command that runs in the folder of the project, with CLUSTER_DIR set. A canceled context ends it
// with all of its children.
func (c *cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = c.root
	cmd.Env = append(os.Environ(), "CLUSTER_DIR="+c.dir)
	// Scripts and nsenter have children. The signal goes to the whole process group; exec alone would kill only the direct
	// child.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	// A child that ignores the signal must not keep the test waiting.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a command and shows its output.
func (c *cluster) run(ctx context.Context, args ...string) error {
	cmd := c.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// output runs a command and returns its output.
// Standard error is in the error only.
func (c *cluster) output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := c.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// script returns the path of a script of hack/cluster.
func (c *cluster) script(name string) string { return filepath.Join(c.root, "hack/cluster", name) }

// in returns a command that runs inside the control plane ("cp") or a node.
func (c *cluster) in(where string, args ...string) []string {
	return append([]string{"bash", c.script("in.sh"), where}, args...)
}

// kubectl runs kubectl in the control plane, as its administrator.
func (c *cluster) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	return c.output(ctx, c.in("cp", append([]string{"kubectl"}, args...)...)...)
}

// build builds the programs of the cluster and the image of the test pods. The nodes load all images at their start.
func (c *cluster) build(ctx context.Context) error {
	if err := c.run(ctx, "bash", c.script("bootstrap.sh")); err != nil {
		return err
	}
	// For the recorded rules of the old agents, and for the pods of the quick start.
	if err := c.run(ctx, "bash", filepath.Join(c.root, "hack/tools.sh"), "iptables-restore=iptables", "busybox=busybox-static"); err != nil {
		return err
	}
	probe, images := filepath.Join(c.dir, "bin/probe"), filepath.Join(c.dir, "images")
	// The agent's program is also for subcommands that a user runs outside of the agent's container.
	bin := filepath.Join(c.dir, "bin")
	for _, p := range [][]string{{probe, "./hack/probe"}, {filepath.Join(bin, programName), "."}, {filepath.Join(bin, "kubectl-mnp"), "./cmd/kubectl-mnp"}} {
		if err := c.run(ctx, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", p[0], p[1]); err != nil {
			return err
		}
	}
	pack := []string{filepath.Join(bin, "image"), "-ref", probeImage, "-o", filepath.Join(images, "probe.tar"), probe + ":/probe"}
	if err := c.run(ctx, pack...); err != nil {
		return err
	}
	return c.busybox(ctx, filepath.Join(images, "busybox.tar"))
}

// busybox packs the busybox of this machine, under the name of the image in the quick start, since the nodes reach no registry.
func (c *cluster) busybox(ctx context.Context, to string) error {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	pack := []string{filepath.Join(c.dir, "bin/image"), "-ref", quickStartImage, "-o", to}
	// Each applet is a file of its own. The file in /tmp makes this folder, into which the server writes.
	for _, path := range []string{"/bin/sh", "/bin/httpd", "/bin/sleep", "/bin/wget", "/bin/timeout", "/tmp/busybox"} {
		pack = append(pack, program+":"+path)
	}
	return c.run(ctx, pack...)
}

// agent adds the image of the agent to the images of the cluster, or removes it. It is the image of a release, as users get it.
// With -image, the archive is taken as it is.
func (c *cluster) agent(ctx context.Context, o options) error {
	file := filepath.Join(c.dir, "images/agent.tar")
	if o.noAgent {
		return os.RemoveAll(file)
	}
	if o.image != "" {
		return c.run(ctx, "cp", o.image, file)
	}
	release, err := filepath.Abs(o.release)
	if err != nil {
		return err
	}
	if o.release == "" {
		release = filepath.Join(c.dir, "release")
		if err := os.RemoveAll(release); err != nil {
			return err
		}
		if err := c.run(ctx, "go", "run", "./hack/release", "-o", release, testVersion); err != nil {
			return err
		}
	}
	c.release = release
	return c.run(ctx, "cp", filepath.Join(release, "image.tar"), file)
}

// manifests returns the arguments with which kubectl applies the manifests of this run.
func (c *cluster) manifests() []string {
	if c.release != "" {
		return []string{"-f", filepath.Join(c.release, "install.yaml")}
	}
	return []string{"-k", "hack/e2e/agent"}
}

// nameImage gives the image of the release, in each node, the name that the overlays of this test use. The manifests of the release name
// the image by its digest, so they need no other name.
func (c *cluster) nameImage(ctx context.Context) error {
	if c.release == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(c.release, "image/index.json"))
	if err != nil {
		return err
	}
	var index struct {
		Manifests []struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return err
	}
	if len(index.Manifests) == 0 {
		return errors.New("the layout has no image")
	}
	name := index.Manifests[0].Annotations["io.containerd.image.name"]
	for _, node := range nodes {
		if _, err := c.output(ctx, c.in(node, "ctr", "-n", "k8s.io", "images", "tag", name, agentImage)...); err != nil {
			return err
		}
	}
	return nil
}

// up starts the control plane and the nodes.
func (c *cluster) up(ctx context.Context) error {
	return c.run(ctx, "bash", c.script("up.sh"), fmt.Sprint(len(nodes)))
}

// down takes the cluster down, also after an interrupt.
func (c *cluster) down() error {
	return c.run(context.Background(), "bash", c.script("down.sh"))
}

// diagnose prints the pods, policies, events, logs and tables of a cluster after a failed check. Later the cluster is
// gone.
// It prints what it can get within 30 seconds, and ignores errors.
func (c *cluster) diagnose(pods map[string]*pod) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "multi-policy", "-A", "-o", "yaml"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", namespace, "-l", agentLabel, "--prefix", "--tail=200"},
		{"logs", "-n", namespace, "-l", agentLabel, "--prefix", "--tail=50", "--previous"},
	} {
		out, err := c.kubectl(ctx, args...)
		fmt.Printf("---- kubectl %s\n%s", strings.Join(args, " "), out)
		if err != nil {
			fmt.Println(err)
		}
	}
	for _, name := range names(pods) {
		out, err := c.table(ctx, pods[name])
		fmt.Printf("---- the table of pod %s (%v)\n%s", name, err, out)
	}
}
