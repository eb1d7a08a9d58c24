package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// streams are the floods of the migration. The policy lets the server exchange packets with the client alone.
var streams = []stream{
	{"client", "server", true}, {"server", "client", true},
	{"stranger", "server", false}, {"server", "stranger", false},
}

// migration follows the steps of docs/migration.md, from each old agent to this agent and back, with packets in flight.
func (s *scenario) migration(ctx context.Context) error {
	m := migration{scenario: s}
	if err := m.prepare(ctx); err != nil {
		return err
	}
	m.iptables, m.nftables = iptablesAgent(s.cluster, m.pods["server"]), nftablesAgent(s.cluster, m.pods["server"])
	defer m.iptables.kill()
	defer m.nftables.kill()
	// Each step starts with the rules that the step before it left.
	for _, step := range []func(context.Context) error{
		m.fromIPTables, m.toIPTables, m.fromKilledIPTables, m.fromNFTables, m.toNFTables, m.fromNFTables, m.toNFTablesClosed,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return errors.Join(m.remove(ctx), s.must(ctx, "delete", "namespace", "migration"))
}

// migration is the part of the scenario with pods of its own, in the namespace of that name.
type migration struct {
	*scenario
	pods               map[string]*pod
	iptables, nftables *oldAgent
}

// prepare starts the pods, without any agent, and creates the policy.
func (m *migration) prepare(ctx context.Context) error {
	if err := m.remove(ctx); err != nil {
		return err
	}
	// The pods before the policy: the API server refuses pods in a namespace without a service account.
	err := m.eventually(ctx, func() error { return m.must(ctx, "apply", "-f", "hack/e2e/migration/pods.yaml") })
	if err == nil {
		err = m.must(ctx, "apply", "-f", "manifests/base/crd.yaml")
	}
	if err == nil {
		err = m.must(ctx, "wait", "--for=condition=Established", "crd/multi-networkpolicies.k8s.cni.cncf.io")
	}
	if err == nil {
		err = m.must(ctx, "apply", "-f", "hack/e2e/migration/policy.yaml")
	}
	if err != nil {
		return err
	}
	err = m.eventually(ctx, func() (err error) {
		m.pods, err = m.testPods(ctx, "-n", "migration")
		return err
	})
	m.check("migration: pods start", err)
	if err != nil {
		return err
	}
	// Without rules all packets must arrive, or the counts below would say nothing.
	t, err := m.send(ctx, m.pods, streams)
	if err != nil {
		return err
	}
	deliveries, err := t.stop()
	for s, d := range deliveries {
		if d.lost() != 0 || d.sent == 0 {
			err = errors.Join(err, fmt.Errorf("%s to %s: %d of %d datagrams arrived", s.from, s.to, d.arrived, d.sent))
		}
	}
	m.check("migration: without rules, all packets arrive", err)
	return err
}

// fromIPTables starts this agent while the old agent runs, and then ends the old agent.
func (m *migration) fromIPTables(ctx context.Context) error {
	if err := m.iptables.launch(ctx); err != nil {
		return err
	}
	return m.inFlight(ctx, "from iptables", 0, func() error {
		if err := m.install(ctx); err != nil {
			return err
		}
		return errors.Join(m.iptables.stop(ctx), m.tables(ctx, m.pods, "server"))
	})
}

// toIPTables starts the old agent while this agent runs. Then it ends this agent and removes the tables.
func (m *migration) toIPTables(ctx context.Context) error {
	return m.inFlight(ctx, "back to iptables", 0, func() error {
		if err := m.iptables.launch(ctx); err != nil {
			return err
		}
		return errors.Join(m.remove(ctx), m.tables(ctx, m.pods))
	})
}

// fromKilledIPTables kills the old agent, whose rules stay until the documented commands flush them.
func (m *migration) fromKilledIPTables(ctx context.Context) error {
	m.iptables.kill()
	err := m.inFlight(ctx, "from killed iptables", 0, func() error {
		if err := m.install(ctx); err != nil {
			return err
		}
		if err := m.iptables.enforces(ctx, true); err != nil {
			return err
		}
		return errors.Join(m.onNodes(ctx, flushCommand), m.iptables.enforces(ctx, false))
	})
	return errors.Join(err, m.remove(ctx))
}

// fromNFTables ends the old agent, whose table stays, and starts this agent, which replaces the table. It also removes the table from a pod
// that no policy selects any more.
func (m *migration) fromNFTables(ctx context.Context) error {
	if err := errors.Join(m.nftables.launch(ctx), m.shell(ctx, m.pods["leaver"], m.nftables.load)); err != nil {
		return err
	}
	// While the kernel commits the batch, it may drop allowed packets.
	return m.inFlight(ctx, "from nft", commitLoss, func() error {
		if err := errors.Join(m.nftables.stop(ctx), m.install(ctx)); err != nil {
			return err
		}
		return errors.Join(m.nftables.enforces(ctx, false), m.tables(ctx, m.pods, "server"))
	})
}

// commitLoss is the maximum number of allowed datagrams of a stream that a replacement of a table may cost, at one each 2 ms.
const commitLoss = 5

// toNFTables ends this agent, removes its tables and starts the old agent. In between the pods are open.
func (m *migration) toNFTables(ctx context.Context) error {
	t, err := m.send(ctx, m.pods, streams)
	if err != nil {
		return err
	}
	err = m.end(ctx)
	m.check("migration: back to nft: no other program can write the table before cleanup", m.isLocked(ctx))
	err = errors.Join(err, m.cleanup(ctx), m.nftables.launch(ctx))
	deliveries, errStop := t.stop()
	if err := errors.Join(err, errStop); err != nil {
		return err
	}
	open := time.Duration(0)
	for s, d := range deliveries {
		if !s.allowed {
			open = max(open, d.window)
		}
	}
	if open == 0 {
		err = errors.New("no forbidden packet arrived, but docs/migration.md says that the pods are open for a moment")
	}
	m.check("migration: back to nft: pods are open between the two agents", err)
	m.note("migration: back to nft: forbidden packets arrived for %s", open.Round(time.Millisecond))
	return m.inFlight(ctx, "back to nft, with the old agent", 0, func() error { return nil })
}

// isLocked returns an error if the table has the flags of a table with an owner (Linux 6.9) and stock nft can add to it nevertheless.
func (m *migration) isLocked(ctx context.Context) error {
	err := m.shell(ctx, m.pods["server"], "nft list table inet multi_networkpolicy | grep -q flags || exit 2; nft add table inet multi_networkpolicy")
	if err == nil {
		return errors.New("nft adds the table")
	}
	if !strings.Contains(err.Error(), "Operation not supported") && !strings.Contains(err.Error(), "exit status 2") {
		return err
	}
	return nil
}

// toNFTablesClosed does the same with a copy of each table, which is in force in between.
func (m *migration) toNFTablesClosed(ctx context.Context) error {
	return m.inFlight(ctx, "back to nft, with copies", 0, func() error {
		if err := m.end(ctx); err != nil {
			return err
		}
		if err := errors.Join(m.onNodes(ctx, copyCommand), m.cleanup(ctx), m.nftables.launch(ctx)); err != nil {
			return err
		}
		return m.onNodes(ctx, dropCopyCommand)
	})
}

// The commands of docs/migration.md that run on each node, as root.
const (
	flushCommand = `for n in /run/netns/*; do nsenter --net=$n iptables -F; nsenter --net=$n ip6tables -F; done`
	copyCommand  = `for n in /run/netns/*; do nsenter --net=$n nft -s list table inet multi_networkpolicy 2> /dev/null | ` +
		`sed -e '/^\tflags/d' -e '1s/multi_networkpolicy.*/multi_networkpolicy_copy {/' | nsenter --net=$n nft -f -; done`
	dropCopyCommand = `for n in /run/netns/*; do nsenter --net=$n nft delete table inet multi_networkpolicy_copy 2> /dev/null; done; true`
)

// install applies the manifests and waits until the agents are ready, as docs/migration.md says.
func (m *migration) install(ctx context.Context) error {
	if err := m.must(ctx, append([]string{"apply"}, m.manifests()...)...); err != nil {
		return err
	}
	return m.must(ctx, "rollout", "status", "-n", namespace, "daemonset/"+programName, "--timeout", patience.String())
}

// remove ends the agents and removes their tables, as docs/migration.md says.
func (m *migration) remove(ctx context.Context) error { return errors.Join(m.end(ctx), m.cleanup(ctx)) }

// end ends the agents. Their tables stay.
func (m *migration) end(ctx context.Context) error {
	return m.must(ctx, "delete", "-n", namespace, "daemonset", programName, "--cascade=foreground", "--ignore-not-found")
}

// cleanup removes the tables.
func (m *migration) cleanup(ctx context.Context) error { return m.onNodes(ctx, programName+" cleanup") }

// onNodes runs a shell command on each node.
func (m *migration) onNodes(ctx context.Context, command string) error {
	var errs []error
	for _, node := range nodes {
		_, err := m.output(ctx, m.in(node, "bash", "-c", command)...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// inFlight runs steps while all streams are in flight. It checks that no forbidden datagram arrives and at most loss datagrams of each
// allowed stream are lost.
func (m *migration) inFlight(ctx context.Context, name string, loss int, steps func() error) error {
	t, err := m.send(ctx, m.pods, streams)
	if err != nil {
		return err
	}
	start := time.Now()
	errSteps := steps()
	took := time.Since(start)
	time.Sleep(300 * time.Millisecond) // the state after the last step counts too
	deliveries, err := t.stop()
	if err != nil {
		return errors.Join(err, errSteps)
	}
	var errs []error
	var figures []string
	for _, s := range streams {
		d := deliveries[s]
		switch {
		case s.allowed && d.lost() > loss:
			errs = append(errs, fmt.Errorf("%s to %s: %d of %d datagrams are lost", s.from, s.to, d.lost(), d.sent))
		case !s.allowed && d.arrived > 0:
			errs = append(errs, fmt.Errorf("%s to %s: %d forbidden datagrams arrived, over %s", s.from, s.to, d.arrived, d.window))
		case d.sent < 100:
			errs = append(errs, fmt.Errorf("%s to %s: only %d datagrams were sent", s.from, s.to, d.sent))
		}
		figures = append(figures, fmt.Sprintf("%s to %s %d of %d", s.from, s.to, d.arrived, d.sent))
	}
	m.check("migration: "+name+": the steps work", errSteps)
	m.check("migration: "+name+": nothing forbidden arrives, nothing allowed is lost beyond the documented", errors.Join(errs...))
	m.note("migration: %s: %s of steps; arrived: %s", name, took.Round(time.Millisecond), strings.Join(figures, ", "))
	return errSteps
}
