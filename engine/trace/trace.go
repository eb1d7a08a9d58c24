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
)

// Tracer follows packets through the rules of one network namespace, like `nft monitor trace`. It marks them by a table
// of its own and changes no other. Its methods must not run at the same time.
type Tracer struct {
	netns   *os.File
	table   *nfnl.Conn // the table is gone when this socket is closed, whoever closes it
	events  *netlink.Conn
	links   map[uint32]string
	rules   ruleIndex
	stories stories
	lost    int
}

// ErrBusy is a network namespace in which another process traces packets.
var ErrBusy = errors.New("another process traces packets there")

// settle is how long nothing must be said of a packet before its way is taken for complete. All rules are passed
// within one system call or interrupt, unless a rule sends the packet to user space.
const settle = 100 * time.Millisecond

// Open opens the sockets in the network namespace that the path is a handle of. It changes nothing there.
func Open(path string) (_ *Tracer, err error) {
	t := &Tracer{links: map[uint32]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.table, err = nfnl.Open(path); err != nil {
		return nil, err
	}
	t.rules.conn = t.table
	if t.netns, err = os.Open(path); err != nil {
		return nil, err
	}
	if t.events, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(t.netns.Fd())}); err != nil {
		return nil, fmt.Errorf("open the socket for trace events: %w", err)
	}
	if err := t.events.SetReadBuffer(nfnl.ReceiveBuffer); err != nil {
		return nil, fmt.Errorf("receive buffer for trace events: %w", err)
	}
	return t, nil
}

// Start marks the packets of the filter from now on, until the Tracer is closed or the process ends in any way. Where
// the kernel cannot see to that (before 5.12) it returns false, and the mark ends at the time end.
func (t *Tracer) Start(filter Filter, end time.Time) (endsWithProcess bool, err error) {
	// Before the table, so that no event is missed.
	if err := t.events.JoinGroup(unix.NFNLGRP_NFTRACE); err != nil {
		return false, fmt.Errorf("join the group of trace events: %w", err)
	}
	err = t.create(markTable{filter: filter, flags: owner})
	// EINVAL is what kernels say that know no flag but dormant.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return false, t.create(markTable{filter: filter, end: end})
	}
	return err == nil, err
}

// owner is NFT_TABLE_F_OWNER (kernel 5.12): the table belongs to the socket, and goes with it.
const owner = 1 << 1

// IsIsolated reports whether the namespace has the agent's table.
func (t *Tracer) IsIsolated() bool { return t.hasTable(engine.TableName) }

// create makes the table. If there is a table already, it is a leftover, unless it belongs to a socket.
func (t *Tracer) create(table markTable) error {
	var m nfnl.Messages
	if err := table.encode(&m); err != nil {
		return err
	}
	err := t.table.Do(&m, nil)
	switch {
	case errors.Is(err, unix.EEXIST):
		if _, err := remove(t.table); err != nil {
			return err
		}
		err = t.table.Do(&m, nil)
	case errors.Is(err, unix.EPERM) && t.hasTable(TableName):
		return fmt.Errorf("%w: the table inet %s has an owner", ErrBusy, TableName)
	}
	if err != nil {
		return fmt.Errorf("make the table inet %s: %w", TableName, err)
	}
	return nil
}

// hasTable asks for a table of the family inet.
func (t *Tracer) hasTable(name string) (found bool) {
	var m nfnl.Messages
	begin(&m, unix.NFT_MSG_GETTABLE, 0, nfnl.Label{Op: "GETTABLE", Object: name})
	m.Text(unix.NFTA_TABLE_NAME, name)
	m.End()
	err := t.table.Ask(&m, nfnl.NFTables|unix.NFT_MSG_NEWTABLE, func(nfnl.Attrs) error { found = true; return nil })
	return err == nil && found
}

// Next waits for the next packet and returns its whole way.
func (t *Tracer) Next(ctx context.Context) (Packet, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Packet{}, err
		}
		if p, ok := t.stories.settled(time.Now().Add(-settle)); ok {
			return p, nil
		}
		if err := t.receive(time.Now().Add(settle / 2)); err != nil {
			return Packet{}, err
		}
	}
}

// Rest returns a packet that has not been returned yet, without waiting for the end of its way.
func (t *Tracer) Rest() (Packet, bool) { return t.stories.settled(time.Now()) }

// Lost is how often events were lost because they came faster than they were read. What was lost is not known.
func (t *Tracer) Lost() int { return t.lost }

// receive takes the events that come until the deadline, or those of one datagram.
func (t *Tracer) receive(deadline time.Time) error {
	if err := t.events.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("deadline for trace events: %w", err)
	}
	messages, err := t.events.Receive()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, unix.ENOBUFS):
		t.lost++
		return nil
	case err != nil:
		return fmt.Errorf("receive trace events: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type != nfnl.NFTables|unix.NFT_MSG_TRACE {
			continue
		}
		e, err := parseEvent(m.Data)
		if err == nil {
			err = t.take(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take adds an event to the way of its packet. The rule that marks a packet is where a way begins; others may mark
// packets too, and these are none of ours.
func (t *Tracer) take(e event) error {
	now := time.Now()
	switch {
	case e.marks():
		return t.begin(e, now)
	case e.isOurs() || e.isEnd() || !t.stories.has(e.id):
		return nil
	}
	step := e.step()
	if step.Handle != 0 {
		rule, err := t.rules.find(e)
		if err != nil {
			return err
		}
		step.Comment, step.Rule, step.Sets = rule.comment, rule.text, rule.sets
	}
	t.stories.add(e.id, step, now)
	return nil
}

func (t *Tracer) begin(e event, now time.Time) error {
	p := Packet{Time: now, Headers: e.packet}
	var err error
	if p.In, err = t.link(e.in); err != nil {
		return err
	}
	if p.Out, err = t.link(e.out); err != nil {
		return err
	}
	t.stories.begin(e.id, p)
	return t.rules.refresh()
}

// Close ends the tracing. On kernels before 5.12 it has to say so.
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

// Remove removes the leftover of a Tracer in the network namespace at the path, and reports whether there was one. Only a
// process that was killed leaves its table, and only on kernels before 5.12. Remove does not end a trace that runs.
func Remove(path string) (removed bool, err error) {
	c, err := nfnl.Open(path)
	if err != nil {
		return false, err
	}
	removed, err = remove(c)
	return removed, errors.Join(err, c.Close())
}

func remove(c *nfnl.Conn) (removed bool, err error) {
	var m nfnl.Messages
	encodeRemoval(&m)
	switch err := c.Do(&m, nil); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM):
		return false, nil
	default:
		return false, fmt.Errorf("remove the table inet %s: %w", TableName, err)
	}
}
