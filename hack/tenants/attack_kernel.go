package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// agentTable is the name of the agent's table.
const agentTable = "multi_networkpolicy"

// kernelAttacks are attacks by root in a pod on the kernel's objects in the pod's network namespace.
// Root cannot leave the namespace of its pod. But the agent's workers enter it, and memory and CPU time are common to all
// pods.
func kernelAttacks() []attack {
	return []attack{
		{name: "flush-loops", does: "root flushes the ruleset of ten pods all the time", start: flushLoops, quick: true},
		{name: "batch-storm", does: "root changes its own table as fast as the kernel allows", start: batchStorm},
		{name: "tables-10000", does: "root creates 10,000 tables, and the policies of the pod change", start: manyTables},
		{name: "table-taken", does: "root in ten pods owns a table with the agent's name before the first large policy comes", start: takenTable},
		{name: "table-huge", does: "a table with the agent's name, 20,000 chains and a set of 500,000 elements exists before the first policy", start: hugeTable},
		{name: "interfaces-flap", does: "root deletes, creates and renames the pod's interface all the time", start: flappingInterfaces},
		{name: "conntrack-full", does: "root fills the connection tracking of two pods", start: fullConntrack},
		{name: "netns-vanishes", does: "the network namespaces of pods vanish while the agent works in them", start: vanishingNamespaces},
		{name: "cpu-busy", does: "pods keep all cores busy", start: busyCores},
	}
}

// rootPods starts pods that a policy with some rules selects.
// Each pod has 20 sets then, so that the agent has a table to defend.
func (t *tenant) rootPods(ctx context.Context, n int) ([]*runningPod, error) {
	if err := t.policy(ctx, "p", "net", peerLists(20)); err != nil {
		return nil, err
	}
	return t.startPods(ctx, n, podOptions{})
}

// connect opens a connection to nf_tables in each pod, which lasts until the end of the attack. It takes the results of rootPods or
// startPods.
// Each connection is a socket of google/nftables, which is much faster than runs of nft.
func (t *tenant) connect(list []*runningPod, err error) (conns []*nftables.Conn, _ error) {
	// Pods that are there get their connections even if others failed; the caller looks at the error first.
	for _, p := range list {
		err = errors.Join(err, p.Do(func() error {
			c, err := nftables.New(nftables.AsLasting())
			if err == nil {
				t.atEnd(func() { c.CloseLasting() }) //nolint:errcheck // nothing is lost with it
				conns = append(conns, c)
			}
			return err
		}))
	}
	return conns, err
}

// inetTable returns a table of family inet.
func inetTable(name string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: name}
}

// flushLoops deletes the tables of the agent where the kernel does not protect them.
// The agent sees the change by the generation and repairs the table. Repairs of ten pods at all times must leave
// workers and CPU time for the victim: ownAtMost. The log lines about repairs have a budget: logAtMost.
func flushLoops(ctx context.Context, t *tenant) error {
	list, err := t.rootPods(ctx, 10)
	if err != nil {
		return err
	}
	for n := range 2 {
		t.loop(func(_ context.Context, i int) error { return list[(2*i+n)%len(list)].nft("flush ruleset") })
	}
	return nil
}

// batchStorm changes the ruleset generation of the namespace faster than the agent can read its table.
// A reader that starts again at each change of the generation would never end. The victim's pods must not wait for a
// pod that changes too fast: ownAtMost.
func batchStorm(ctx context.Context, t *tenant) error {
	conns, err := t.connect(t.rootPods(ctx, 2))
	if err != nil {
		return err
	}
	for _, c := range conns {
		table := c.AddTable(inetTable("storm"))
		if err := c.Flush(); err != nil {
			return err
		}
		// The chain is created and deleted in the same batch: the content stays the same, the generation grows.
		t.loop(func(context.Context, int) error {
			chain := c.AddChain(&nftables.Chain{Table: table, Name: "c"})
			c.DelChain(chain)
			return c.Flush()
		})
	}
	t.loop(changePolicy(t))
	return nil
}

// changePolicy changes the policy p again and again, so that the agent has work in the pods.
func changePolicy(t *tenant) func(ctx context.Context, i int) error {
	return func(ctx context.Context, i int) error {
		pause(ctx, 20*time.Millisecond)
		return t.api.merge(ctx, policies, evilNamespace, "p", object{"spec": peerLists(20 + i%2)})
	}
}

// manyTables makes the kernel search a long list of tables for each message of the agent.
// The time that a message takes in this pod grows, while messages in the victim's pods must not take longer.
func manyTables(ctx context.Context, t *tenant) error {
	conns, err := t.connect(t.rootPods(ctx, 2))
	if err != nil {
		return err
	}
	for _, c := range conns {
		for i := range 10_000 {
			c.AddTable(inetTable(fmt.Sprintf("t%d", i)))
			if i%500 == 499 {
				if err := c.Flush(); err != nil {
					return err
				}
			}
		}
	}
	t.loop(changePolicy(t))
	return nil
}

// takenTable makes the kernel refuse every batch of the agent.
// Half of the tables also outlive their owner's socket (persist). Attempts that can never succeed must not delay the
// victim: ownAtMost.
func takenTable(ctx context.Context, t *tenant) error {
	conns, err := t.connect(t.startPods(ctx, 10, podOptions{}))
	if err != nil {
		return err
	}
	for i, c := range conns {
		table := inetTable(agentTable)
		table.Flags = nftables.TableFlagOwner
		if i%2 == 0 {
			table.Flags |= nftables.TableFlagPersist
		}
		c.AddTable(table)
		if err := c.Flush(); err != nil {
			return err
		}
	}
	return t.policy(ctx, "p", "net", peerLists(999))
}

// hugeTable has the agent read a large table back before it replaces it.
// The memory for reading it must be bounded: the agent's peak is the bound to look at.
func hugeTable(ctx context.Context, t *tenant) error {
	list, err := t.startPods(ctx, 2, podOptions{})
	if err != nil {
		return err
	}
	chains := repeat(20_000, "\n", func(i int) string { return fmt.Sprintf("add chain inet %s c%d", agentTable, i) })
	for _, p := range list {
		if err := p.nft("add table inet " + agentTable + "\nadd set inet " + agentTable + " s { type ipv4_addr; }\n" + chains + "\n"); err != nil {
			return err
		}
		// An element takes tens of bytes of text, so ten runs of nft are easier on the machine than a single run.
		for part := range 10 {
			elements := repeat(50_000, ",", func(i int) string { return netip.AddrFrom4([4]byte{11, byte(part), byte(i >> 8), byte(i)}).String() })
			if err := p.nft("add element inet " + agentTable + " s {" + elements + "}\n"); err != nil {
				return err
			}
		}
	}
	return t.policy(ctx, "p", "net", peerLists(20))
}

// flappingInterfaces takes away the interface that the rules are about.
// The interface may be gone at any moment between the agent's steps. No step may fail in a way that stops the worker.
func flappingInterfaces(ctx context.Context, t *tenant) error {
	list, err := t.rootPods(ctx, 10)
	if err != nil {
		return err
	}
	// Two loops, so that two pods change at the same time.
	for n := range 2 {
		t.loop(func(_ context.Context, i int) error {
			p := list[(2*i+n)%len(list)]
			return errors.Join(p.Detach("net1"), p.Attach(lab.DefaultBridge, "net1", netip.PrefixFrom(p.addr, 16)))
		})
	}
	return nil
}

// fullConntrack has a policy that needs connection tracking in the pods.
// The kernel's hash table and memory for connections are shared by all network namespaces. The victim must lose no
// packet: lostAtMost.
func fullConntrack(ctx context.Context, t *tenant) error {
	// A rule without peers and ports allows everything, and each packet is tracked.
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}, "ingress": []object{{}}, "egress": []object{{}}}); err != nil {
		return err
	}
	list, err := t.startPods(ctx, 2, podOptions{})
	if err != nil {
		return err
	}
	for i, p := range list {
		to := list[1-i].addr
		t.loop(func(ctx context.Context, _ int) error { return sendEverywhere(ctx, p, to) })
	}
	return nil
}

// sendEverywhere sends a datagram to each port of a host. The kernel tracks a connection for each.
// An error of a single datagram is no error of the attack.
func sendEverywhere(ctx context.Context, p *runningPod, to netip.Addr) error {
	var c *net.UDPConn
	err := p.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is lost with it
	for port := 1; port < 1<<16 && ctx.Err() == nil; port++ {
		c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, uint16(port))) //nolint:errcheck // a full table drops it
	}
	return nil
}

// vanishingNamespaces starts pods and removes their network namespaces a moment later, without an event of the runtime.
// The path that the agent opens may vanish between any two of its system calls. Descriptors that stay open are the
// bound to look at: descriptorsMargin.
func vanishingNamespaces(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", peerLists(500)); err != nil {
		return err
	}
	var number atomic.Int64
	for range 2 {
		t.loop(func(ctx context.Context, _ int) error { return t.vanish(ctx, fmt.Sprintf("pod-%d", number.Add(1))) })
	}
	return nil
}

// vanish starts a pod with a network namespace of its own, removes the namespace, then ends the sandbox and deletes
// the pod. The pauses let the agent reach different steps of its work on the pod.
func (t *tenant) vanish(ctx context.Context, name string) error {
	p, err := t.startPod(ctx, name, podOptions{alone: true, quiet: true, unreported: true})
	if err != nil {
		return err
	}
	pause(ctx, 20*time.Millisecond)
	t.removeNetNS(p)
	pause(ctx, 20*time.Millisecond)
	t.endPods(context.WithoutCancel(ctx), p)
	return t.api.remove(context.WithoutCancel(ctx), pods, evilNamespace, name)
}

// busyCores runs two programs for each core. They have the priority of the agent.
// The DaemonSet requests only 20m of CPU time, so the agent must keep its times with a share of the cores.
func busyCores(_ context.Context, t *tenant) error {
	for range 2 * runtime.NumCPU() {
		c := exec.Command("sh", "-c", "while :; do :; done")
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
		started := make(chan error)
		// The launcher's thread starts it, so that it dies with the rig.
		t.launcher.requests <- func() { started <- c.Start() }
		if err := <-started; err != nil {
			return err
		}
		t.atEnd(func() {
			c.Process.Signal(os.Kill) //nolint:errcheck // it may have ended
			c.Wait()                  //nolint:errcheck // it was killed
		})
	}
	return nil
}
