package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Tracer follows packets through the rules of one network namespace, like `nft monitor trace`. It marks them by a table
// of its own and changes no other. Its methods must not run at the same time.
type Tracer struct {
	netns   *os.File
	table   *transport // the table is gone when this socket is closed, whoever closes it
	events  *netlink.Conn
	links   map[uint32]string
	rules   ruleIndex
	stories stories
	lost    int
}

// ErrTracing is a network namespace in which another process traces packets.
var ErrTracing = errors.New("another process traces packets there")

// traceSettle is how long nothing must be said of a packet before its way is taken for complete. All rules are passed
// within one system call or interrupt, unless a rule sends the packet to user space.
const traceSettle = 100 * time.Millisecond

// OpenTracer opens the sockets in the network namespace that the path is a handle of. It changes nothing there.
func OpenTracer(path string) (_ *Tracer, err error) {
	t := &Tracer{links: map[uint32]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.table, err = open(path); err != nil {
		return nil, err
	}
	t.rules.transport = t.table
	if t.netns, err = os.Open(path); err != nil {
		return nil, err
	}
	if t.events, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(t.netns.Fd())}); err != nil {
		return nil, fmt.Errorf("open the socket for trace events: %w", err)
	}
	if err := t.events.SetReadBuffer(receiveBuffer); err != nil {
		return nil, fmt.Errorf("receive buffer for trace events: %w", err)
	}
	return t, nil
}

// Start marks the packets of the filter from now on, until the Tracer is closed or the process ends in any way. Where
// the kernel cannot see to that (before 5.12) it returns false, and the mark ends at the time end.
func (t *Tracer) Start(filter TraceFilter, end time.Time) (endsWithProcess bool, err error) {
	// Before the table, so that no event is missed.
	if err := t.events.JoinGroup(unix.NFNLGRP_NFTRACE); err != nil {
		return false, fmt.Errorf("join the group of trace events: %w", err)
	}
	err = t.create(traceTable{filter: filter, flags: ownedOnly})
	// EINVAL is what kernels say that know no flag but dormant.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return false, t.create(traceTable{filter: filter, end: end})
	}
	return err == nil, err
}

// Isolated says whether the agent's table is in the namespace.
func (t *Tracer) Isolated() bool {
	x := exchanges.Get().(*exchange)
	defer exchanges.Put(x)
	return x.hasTable(t.table, TableName)
}

// create makes the table anew. One that is there is a leftover, unless it belongs to a socket.
func (t *Tracer) create(table traceTable) error {
	x := exchanges.Get().(*exchange)
	defer exchanges.Put(x)
	if err := x.batch.encodeTrace(table); err != nil {
		return err
	}
	err := x.roundTrip(t.table, nil)
	switch {
	case errors.Is(err, unix.EEXIST):
		if err := t.remove(); err != nil {
			return err
		}
		if err := x.batch.encodeTrace(table); err != nil {
			return err
		}
		err = x.roundTrip(t.table, nil)
	case errors.Is(err, unix.EPERM) && x.hasTable(t.table, TraceTableName):
		return fmt.Errorf("%w: the table inet %s has an owner", ErrTracing, TraceTableName)
	}
	if err != nil {
		return fmt.Errorf("make the table inet %s: %w", TraceTableName, err)
	}
	return nil
}

// hasTable asks for a table of the family inet.
func (x *exchange) hasTable(t *transport, name string) (found bool) {
	x.batch.reset()
	x.batch.begin(unix.NFT_MSG_GETTABLE, 0, message{op: "GETTABLE", object: name})
	x.batch.string(unix.NFTA_TABLE_NAME, name)
	x.batch.end()
	err := x.ask(t, unix.NFT_MSG_NEWTABLE, func(attrs) error { found = true; return nil })
	return err == nil && found
}

// Next waits for the next packet and returns its whole way.
func (t *Tracer) Next(ctx context.Context) (TracedPacket, error) {
	for {
		if err := ctx.Err(); err != nil {
			return TracedPacket{}, err
		}
		if p, ok := t.stories.settled(time.Now().Add(-traceSettle)); ok {
			return p, nil
		}
		if err := t.receive(time.Now().Add(traceSettle / 2)); err != nil {
			return TracedPacket{}, err
		}
	}
}

// Rest returns a packet that has not been returned yet, without waiting for the end of its way.
func (t *Tracer) Rest() (TracedPacket, bool) { return t.stories.settled(time.Now()) }

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
		if m.Header.Type != nftMessage|unix.NFT_MSG_TRACE {
			continue
		}
		e, err := parseTraceEvent(m.Data)
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
func (t *Tracer) take(e traceEvent) error {
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

func (t *Tracer) begin(e traceEvent, now time.Time) error {
	p := TracedPacket{Time: now, Packet: e.packet}
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
		errs = append(errs, t.remove(), t.table.close())
	}
	if t.events != nil {
		errs = append(errs, t.events.Close())
	}
	if t.netns != nil {
		errs = append(errs, t.netns.Close())
	}
	return errors.Join(errs...)
}

// remove removes the table if this Tracer may: another process's stays.
func (t *Tracer) remove() error {
	_, err := removeTrace(t.table)
	return err
}

// RemoveTrace removes what a Tracer left in the namespace, and says whether there was something. Only one that was killed
// leaves its table, on kernels before 5.12. A table that has an owner goes with that, and stays until then.
func (e *Engine) RemoveTrace() (removed bool, err error) { return removeTrace(e.transport) }

func removeTrace(t *transport) (removed bool, err error) {
	x := exchanges.Get().(*exchange)
	defer exchanges.Put(x)
	x.batch.encodeTraceRemoval()
	switch err := x.roundTrip(t, nil); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM):
		return false, nil
	default:
		return false, fmt.Errorf("remove the table inet %s: %w", TraceTableName, err)
	}
}
