package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// oldAgent is another agent for MultiNetworkPolicy, which this agent replaces. It is a real process on each node if the caller has its
// program, or else its recorded rules in the pod "server".
type oldAgent struct {
	*cluster
	name    string // of its program
	server  *pod
	list    string // shell command that lists its rules in a pod
	mark    string // in the list if rules for the policy are in force
	load    string // shell command that loads its recorded rules into a pod
	end     string // shell command that leaves the rules as SIGTERM does; empty: the rules stay
	running []*exec.Cmd
}

// iptablesAgent is multi-networkpolicy-iptables. It enforces with iptables, and empties its chains at SIGTERM.
func iptablesAgent(c *cluster, server *pod) *oldAgent {
	const restore = "iptables-restore hack/e2e/migration/iptables.%[1]s && ip6tables-restore hack/e2e/migration/ip6tables.%[1]s"
	return &oldAgent{
		cluster: c, name: "multi-networkpolicy-iptables", server: server,
		list: "iptables-save -t filter; ip6tables-save -t filter", mark: "-A MULTI-INGRESS -j DROP",
		load: fmt.Sprintf(restore, "enforced"), end: fmt.Sprintf(restore, "stopped"),
	}
}

// nftablesAgent is the agent of the Network Plumbing group that runs nft. Its table has the name of this agent's table.
func nftablesAgent(c *cluster, server *pod) *oldAgent {
	return &oldAgent{
		cluster: c, name: "multi-networkpolicy-nftables", server: server,
		list: "nft list ruleset inet", mark: "jump cnp-",
		load: "nft -f hack/e2e/migration/nftables.enforced",
	}
}

// real reports whether the program of the agent is there.
func (a *oldAgent) real() bool { return a.oldAgents != "" }

// launch starts the agent and returns when its rules are in the pod "server".
// A second call starts it anew.
func (a *oldAgent) launch(ctx context.Context) error {
	a.kill()
	if !a.real() {
		return a.shell(ctx, a.server, a.load)
	}
	if _, err := os.Stat(filepath.Join(a.oldAgents, a.name)); err != nil {
		return fmt.Errorf("program of an old agent: %w", err)
	}
	for _, node := range nodes {
		if err := a.process(ctx, node); err != nil {
			return err
		}
	}
	return a.enforces(ctx, true)
}

// process starts the agent on a node.
func (a *oldAgent) process(ctx context.Context, node string) error {
	log, err := os.Create(filepath.Join(a.dir, "log", a.name+"-"+node+".log"))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the agent has a copy of the descriptor
	cmd := a.command(ctx, a.in(node, filepath.Join(a.oldAgents, a.name), "--kubeconfig", filepath.Join(a.dir, "run/pki/admin.kubeconfig"),
		"--hostname-override="+node, "--container-runtime-endpoint=/run/containerd/containerd.sock", "--network-plugins=macvlan")...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	a.running = append(a.running, cmd)
	return nil
}

// stop ends the agent with SIGTERM, and returns when the rules in the pod "server" are as the agent leaves them.
func (a *oldAgent) stop(ctx context.Context) error {
	a.signal(syscall.SIGTERM)
	switch {
	case a.end == "":
		return nil
	case !a.real():
		return a.shell(ctx, a.server, a.end)
	}
	return a.enforces(ctx, false)
}

// kill ends the agent with SIGKILL. Its rules stay as they are.
func (a *oldAgent) kill() { a.signal(syscall.SIGKILL) }

// signal ends the processes of the agent, which are all in the process groups of their first parents.
func (a *oldAgent) signal(sig syscall.Signal) {
	for _, cmd := range a.running {
		_ = syscall.Kill(-cmd.Process.Pid, sig) //nolint:errcheck // the processes may have ended
		_ = cmd.Wait()                          //nolint:errcheck // the error that it was ended
	}
	a.running = nil
}

// enforces waits until rules for the policy are in the pod "server", or until they are gone.
func (a *oldAgent) enforces(ctx context.Context, want bool) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out, err := a.output(ctx, a.inside(a.server, "bash", "-c", a.list)...)
		if err == nil && strings.Contains(string(out), a.mark) == want {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return errors.Join(fmt.Errorf("rules of %s: want %t, they are\n%s", a.name, want, out), err, ctx.Err())
		}
	}
}

// shell runs a shell command in the network namespace of a pod.
func (c *cluster) shell(ctx context.Context, p *pod, command string) error {
	_, err := c.output(ctx, c.inside(p, "bash", "-c", command)...)
	return err
}
