package trace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// Tracer follows packets through the rules of a network namespace. Open it, Start it, call Next until the context ends, then
// call Rest for the packets whose events may be incomplete, and Close it. Its methods must not run at the same time.
type Tracer struct {
	// Each socket has a single purpose: an exchange on table must never meet an event.
	netns   *os.File
	table   *nfnl.Conn        // owns the table that marks packets: the kernel deletes the table with the socket
	events  *netlink.Conn     // receives the events
	links   map[uint32]string // names of interfaces by index, as last read
	rules   ruleIndex
	pending assembler
	lost    int                       // number of times that the kernel dropped events
	buffer  [nfnl.MaximumMessage]byte // of receive
}

// ErrBusy means that another process traces packets in the network namespace.
var ErrBusy = errors.New("another process traces packets there")

// settle is the time without an event after which a packet counts as complete. A packet passes all rules within the same
// system call or interrupt, unless a rule queues it to user space.
const settle = 100 * time.Millisecond

// Open opens the sockets in the network namespace that the path is a handle of (/run/netns/NAME, /proc/PID/ns/net). It
// changes nothing in it.
func Open(path string) (_ *Tracer, err error) {
	t := &Tracer{links: map[uint32]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	// nfnl.Open refuses the agent's own namespace, so a trace never marks packets of the host.
	if t.table, err = nfnl.Open(path); err != nil {
		return nil, err
	}
	t.rules.conn = t.table
	// Not from the path again, which may lead to another namespace by now (/proc/PID of a process that has ended).
	if t.netns, err = t.table.Namespace(); err != nil {
		return nil, err
	}
	if t.events, err = nfnl.DialKernel(t.netns, unix.NETLINK_NETFILTER); err != nil {
		return nil, fmt.Errorf("socket for trace events: %w", err)
	}
	if err := t.events.SetReadBuffer(nfnl.ReceiveBuffer); err != nil {
		return nil, fmt.Errorf("receive buffer for trace events: %w", err)
	}
	return t, nil
}

// Start creates the table that marks the packets of the filter. The kernel deletes the table when the Tracer is closed or
// the process ends, even if it is killed. Kernels before 5.12 cannot do that: then Start returns false, and the table marks no
// packets after the time end. The error is ErrBusy if another process traces packets in the namespace.
func (t *Tracer) Start(filter Filter, end time.Time) (endsWithProcess bool, err error) {
	// The Tracer joins before it creates the table, and misses no event.
	if err := t.events.JoinGroup(unix.NFNLGRP_NFTRACE); err != nil {
		return false, fmt.Errorf("join the group of trace events: %w", err)
	}
	// With an owner first, since a table without an owner outlives a process that is killed.
	table := markTable{filter: filter, flags: owner}
	err = t.create(table)
	// Kernels that know no flag but dormant answer EINVAL.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		table.flags, table.end = 0, end
		err = t.create(table)
	}
	// The agent's table of family bridge decides about frames that the table of family inet never sees.
	if err == nil && t.hasTable(engine.Bridge, engine.TableName) {
		table.family = engine.Bridge
		err = t.create(table)
	}
	return err == nil && table.flags == owner, err
}

// owner is NFT_TABLE_F_OWNER (kernel 5.12): the socket owns the table, and the kernel deletes the table with the socket.
const owner = 1 << 1

// IsIsolated reports whether the namespace has the agent's table.
func (t *Tracer) IsIsolated() bool { return t.hasTable(engine.Inet, engine.TableName) }

// create creates the table. It replaces a table without an owner, which a killed process left behind.
func (t *Tracer) create(table markTable) error {
	var m nfnl.Messages
	if err := table.encode(&m); err != nil {
		return err
	}
	// The same bytes are sent again after the old table is gone: encode wrote a complete batch.
	err := t.table.Do(&m, nil)
	switch {
	case errors.Is(err, unix.EEXIST):
		// The table has no owner, so its process is gone: with an owner, the error is EPERM.
		if _, err := removeTable(t.table, table.family); err != nil {
			return err
		}
		err = t.table.Do(&m, nil)
	case errors.Is(err, unix.EPERM) && t.hasTable(table.family, TableName):
		return fmt.Errorf("%w: the table %s %s has an owner", ErrBusy, table.family, TableName)
	}
	if err != nil {
		return fmt.Errorf("make the table %s %s: %w", table.family, TableName, err)
	}
	return nil
}

// hasTable reports whether the namespace has the table of the family.
func (t *Tracer) hasTable(f expr.TableFamily, name string) (found bool) {
	var m nfnl.Messages
	begin(&m, f, unix.NFT_MSG_GETTABLE, 0, nfnl.Label{Op: "GETTABLE", Object: name})
	m.Text(unix.NFTA_TABLE_NAME, name)
	m.End()
	err := t.table.Ask(&m, nfnl.NFTables|unix.NFT_MSG_NEWTABLE, func(nfnl.Attrs) error { found = true; return nil })
	return err == nil && found
}

// Next waits for the next packet whose events are complete. It returns the error of the context when that ends.
func (t *Tracer) Next(ctx context.Context) (Packet, error) {
	// The context is checked between two waits, so Next returns at the latest settle/2 after its end.
	for {
		if err := ctx.Err(); err != nil {
			return Packet{}, err
		}
		// To take an event may be slow: it can need a dump of the rules. So the events that came meanwhile are read before any
		// packet counts as settled.
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = t.receive(time.Now().Add(time.Millisecond)); err != nil {
				return Packet{}, err
			}
		}
		if p, ok := t.pending.settled(time.Now().Add(-settle)); ok {
			return p, nil
		}
		if _, err := t.receive(time.Now().Add(settle / 2)); err != nil {
			return Packet{}, err
		}
	}
}

// Rest returns the oldest packet that Next has not returned, or false if it has returned all. It does not wait for more events.
func (t *Tracer) Rest() (Packet, bool) { return t.pending.settled(time.Now()) }

// Lost returns how many times the kernel dropped events because the receive buffer was full. The number of dropped events
// is unknown.
func (t *Tracer) Lost() int { return t.lost }

// receive reads a datagram of events. It returns false if none comes until the deadline.
func (t *Tracer) receive(deadline time.Time) (bool, error) {
	if err := t.events.SetReadDeadline(deadline); err != nil {
		return false, fmt.Errorf("deadline for trace events: %w", err)
	}
	in := t.buffer[:]
	n, err := nfnl.ReceiveEvents(t.events, in)
	// ENOBUFS is no end: the socket goes on after the gap, and Lost tells the user about it.
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	case errors.Is(err, unix.ENOBUFS):
		t.lost++
		return true, nil
	case err != nil:
		return false, fmt.Errorf("receive trace events: %w", err)
	}
	err = nfnl.EachMessage(in[:n], func(m nfnl.Answer) error {
		if m.Type != nfnl.NFTables|unix.NFT_MSG_TRACE {
			return nil
		}
		e, err := parseEvent(m.Body)
		if err != nil {
			return err
		}
		return t.take(e)
	})
	return err == nil, err
}

// take adds an event to its packet. The event of the rule that marks packets starts a packet. Events of packets that another
// table marked are ignored.
func (t *Tracer) take(e event) error {
	now := time.Now()
	switch {
	case e.marks():
		return t.begin(e, now)
	case e.isOurs() || e.isEnd() || !t.pending.has(e.id):
		// The rules of the Tracer and the ends of chains are no steps.
		return nil
	}
	step := e.step()
	if step.Handle != 0 {
		// The event has the handle of the rule only; the comment and the sets come from a dump.
		rule, err := t.rules.find(e)
		if err != nil {
			return err
		}
		step.Comment, step.Rule, step.Sets = rule.comment, rule.text, rule.sets
	}
	t.pending.add(e.id, step, now)
	return nil
}

// begin starts a packet, from its first event.
func (t *Tracer) begin(e event, now time.Time) error {
	p := Packet{Time: now, Headers: e.packet}
	var err error
	if p.In, err = t.link(e.in); err != nil {
		return err
	}
	if p.Out, err = t.link(e.out); err != nil {
		return err
	}
	t.pending.begin(e.id, p)
	// Once for each packet is enough: all events of a packet belong to rules that were in force when it came.
	return t.rules.refresh()
}

// Close deletes the table and closes the sockets. The deletion matters for kernels before 5.12: later kernels delete the
// table with the socket.
func (t *Tracer) Close() error {
	var errs []error
	if t.table != nil {
		_, err := remove(t.table)
		errs = append(errs, err, t.table.Close())
	}
	if t.events != nil {
		errs = append(errs, t.events.Close())
	}
	if t.netns != nil {
		errs = append(errs, t.netns.Close())
	}
	return errors.Join(errs...)
}

// Remove deletes the table of a Tracer whose process was killed, in the network namespace at the path, and reports whether the
// table existed. Only kernels before 5.12 leave such a table. Remove does not end a running trace.
func Remove(path string) (removed bool, err error) {
	c, err := nfnl.Open(path)
	if err != nil {
		return false, err
	}
	removed, err = remove(c)
	return removed, errors.Join(err, c.Close())
}

// remove deletes the tables of both families.
func remove(c *nfnl.Conn) (removed bool, err error) {
	for _, f := range expr.TableFamilies {
		is, failed := removeTable(c, f)
		removed, err = removed || is, errors.Join(err, failed)
	}
	return removed, err
}

// removeTable deletes the table of a family unless another socket owns it (EPERM).
func removeTable(c *nfnl.Conn, f expr.TableFamily) (removed bool, err error) {
	var m nfnl.Messages
	encodeRemoval(&m, f)
	switch err := c.Do(&m, nil); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM): // no table, or the table of a running trace
		return false, nil
	default:
		return false, fmt.Errorf("remove the table %s %s: %w", f, TableName, err)
	}
}
