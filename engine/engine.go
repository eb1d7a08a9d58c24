//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/conntrack"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// ApplyError is the error of an operation on a pod's table. The previous rules are still in force, or a safe
// intermediate state (see Apply). If the kernel gave no answer, the wanted rules may be in force; the next Apply finds
// out by reading the table.
type ApplyError struct {
	Pod string // as given to Open
	Op  string // the operation: "open", "apply", "remove", "check", "close"
	Err error  // holds a *nfnl.MessageError for each message that the kernel refused; errors.Is reaches the errno
}

func (e *ApplyError) Error() string { return fmt.Sprintf("pod %s: %s: %v", e.Pod, e.Op, e.Err) }
func (e *ApplyError) Unwrap() error { return e.Err }

// Engine owns a table in a network namespace. Its methods must not run at the same time, and neither may those of its
// sibling, with which it shares the socket.
type Engine struct {
	pod       string
	family    expr.TableFamily // of the table
	transport *nfnl.Conn
	port      uint32        // port of transport's socket when the Engine last looked; another port means a new socket
	sibling   *Engine       // the Engine of the other family, over the same transport; nil: none
	flags     uint32        // flags of tables that it makes: owned, or 0
	budget    time.Duration // maximum kernel time of a batch; shorter in tests
	// have is the table as the kernel acknowledged it last. nil means that it is unknown: the next Apply reads it.
	have    *table
	stale   bool // another process may have changed the table since; the next Apply reads it
	stats   Stats
	seeding seeding
}

// Options are the settings of an Engine. The zero value works with any kernel, for a table of family inet.
type Options struct {
	Family expr.TableFamily // of the table

	// Own makes the socket the owner of the table: while the Engine is open, no other process, root in the pod
	// included, can change or flush the table. The table stays when the Engine is closed. It needs a kernel with
	// Features.Owner.
	Own bool
}

// Stats counts the work of an Engine since it was opened. The counts only grow, except that Repairs counts a single
// repair for several looks of the same Apply.
type Stats struct {
	Batches, Messages, Bytes uint64 // acknowledged by the kernel
	Refused                  uint64 // batches that the kernel refused, or did not answer
	ReadBacks                uint64 // times that the table was read
	Restarts                 uint64 // batches that came too late: another process had changed something in the namespace
	Repairs                  uint64 // times that another process had changed the table
	Seeded                   uint64 // connections whose entries in connection tracking the Engine made or corrected
	SeedFailures             uint64 // times that the Engine could not make all of them
}

// Open enters the network namespace that the path is a handle of (/run/netns/NAME, /proc/PID/ns/net) and opens the
// socket there. It changes nothing. pod is a name for errors. The namespace lives on while the Engine is open.
func Open(pod, path string, o Options) (*Engine, error) {
	t, err := nfnl.Open(path)
	if err != nil {
		return nil, &ApplyError{Pod: pod, Op: "open", Err: err}
	}
	return newEngine(pod, t, o), nil
}

// newEngine returns an Engine over a socket, which it owns from now on.
// The content of the table is unknown to it, so its first Apply reads the table.
func newEngine(pod string, t *nfnl.Conn, o Options) *Engine {
	e := &Engine{pod: pod, family: o.Family, transport: t, port: t.Port(), budget: batchBudget}
	if o.Own {
		e.flags = owned
	}
	return e
}

// Close closes the socket. The table stays in force, without an owner.
// The Engine, and its sibling, must not be used afterwards.
func (e *Engine) Close() error {
	if err := e.transport.Close(); err != nil {
		return &ApplyError{Pod: e.pod, Op: "close", Err: err}
	}
	return nil
}

// Apply makes the table equal to want, and sends nothing if it is equal already. New sets come in one batch, while no rule
// refers to them; everything else changes in a second batch. If the estimated kernel time exceeds the budget, Apply uses
// more batches (see steps) and stops between two of them when ctx is canceled.
//
// The first Apply, and the first Apply after an error, reads the kernel's table: matching objects stay, the others change,
// and a table with objects that a Ruleset cannot have is replaced. After an error the previous rules are in force, or a
// safe intermediate state; the next Apply continues from there.
func (e *Engine) Apply(ctx context.Context, want Ruleset) error {
	op := "apply"
	if want.IsEmpty() {
		op = "remove"
	}
	if err := ctx.Err(); err != nil {
		return &ApplyError{Pod: e.pod, Op: op, Err: err}
	}
	// A new socket owns no table, so the table must be read.
	e.notice()
	if err := e.apply(ctx, want); err != nil {
		return e.fail(op, err)
	}
	return nil
}

// Stats returns the counts up to now.
func (e *Engine) Stats() Stats { return e.stats }

// Finding is the result of Check. The zero value is AsApplied.
type Finding int

const (
	AsApplied      Finding = iota // the table is as the last Apply left it
	Repaired                      // another process had changed the table, and Check repaired it
	OwnedByAnother                // the table is as applied, and the socket of another process owns it
	TakenOver                     // the other owner is gone, and this Engine owns the table now
	Reseeded                      // another process had deleted the entries of connections, and Check made them again
)

// Check reports whether the table is still as the last Apply left it, and repairs it if it is not. It costs one question
// to the kernel while nobody changes any table of the namespace. After a change it costs a second question if the Engine
// owns the table, and a look at the whole table otherwise. Check does nothing before the first successful Apply and after
// a failed one.
func (e *Engine) Check(ctx context.Context) (Finding, error) {
	if e.have == nil || e.have.underWay || ctx.Err() != nil {
		return AsApplied, ctx.Err()
	}
	// Connection tracking first: its entries may be gone while the table is intact.
	x, done := e.exchange()
	defer done()
	reseeded, err := e.reseed(x)
	if err != nil {
		return AsApplied, e.fail("check", err)
	}
	generation, err := x.generation(e.transport)
	if err != nil {
		return AsApplied, e.fail("check", err)
	}
	before, repairs := e.have, e.stats.Repairs
	if !e.notice() && !before.elsewhere { // the end of another owner does not change the generation
		// Nothing has changed, or the table is owned and intact, so that only other tables have changed.
		if generation == before.generation || before.isOwn() && x.isIntact(e.transport, before) {
			before.generation = generation
			if reseeded {
				return Reseeded, nil
			}
			return AsApplied, nil
		}
	}
	// The same way as after an error: read the table, plan, repair.
	e.stale = true
	// before.ruleset is the wanted ruleset, since an Apply that is under way was excluded above.
	if err := e.apply(ctx, before.ruleset); err != nil {
		return AsApplied, e.fail("check", err)
	}
	switch {
	case e.have.elsewhere:
		return OwnedByAnother, nil
	case before.elsewhere:
		return TakenOver, nil
	case e.stats.Repairs != repairs:
		return Repaired, nil
	}
	return AsApplied, nil
}

// fail makes the error of an operation. It marks the content of the table as unknown, because a batch may have failed
// halfway through Apply. A canceled operation stopped between two batches, so the content is known.
func (e *Engine) fail(op string, err error) error {
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		e.have = nil
	}
	return &ApplyError{Pod: e.pod, Op: op, Err: err}
}

// Apply starts again when another process changes the tables of the namespace at the same time (ERESTART). These limits
// keep a process that never pauses from blocking every change of the rules.
const (
	applyTries   = 5  // tries in a row without an accepted batch
	mostRestarts = 50 // tries in total: the other process may undo accepted batches
)

// apply brings the table to want, and starts again after a change by another process.
// Its errors are not wrapped in an ApplyError yet.
func (e *Engine) apply(ctx context.Context, want Ruleset) error {
	x, done := e.exchange()
	defer done()
	repairs := e.stats.Repairs
	for try, restarts := 1, 1; ; try, restarts = try+1, restarts+1 {
		batches := e.stats.Batches
		err := e.applyOnce(ctx, x, want)
		e.stats.Repairs = min(e.stats.Repairs, repairs+1) // each look may find the same change
		if !errors.Is(err, unix.ERESTART) && !errors.Is(err, errUnstable) {
			return err
		}
		e.stats.Restarts++
		// An accepted batch is progress, so the tries count from 1 again. mostRestarts still ends the loop.
		if e.stats.Batches > batches {
			try = 0
		}
		if try == applyTries || restarts == mostRestarts {
			return e.replace(x, want)
		}
		e.stale = true
	}
}

// ErrLocked means that another process changes the tables of the namespace without a pause, and that the rules are too
// many for a single batch. The table drops nearly all packets of the isolated interfaces until an Apply succeeds.
var ErrLocked = errors.New("another process changes the network namespace all the time, so its interfaces are locked down")

// replace replaces the table in a batch that the kernel accepts whatever the table holds and whoever changes it: the
// batch names no generation, and deletes the table without knowing its content.
func (e *Engine) replace(x *exchange, want Ruleset) error {
	unknown := &table{foreign: true, generation: nfnl.AnyGeneration}
	if e.have != nil {
		unknown.lookup = e.have.lookup
	}
	e.have, e.stale = unknown, false
	p := makePlan(e.have, want, e.flags)
	next, result := want, error(nil)
	// Rules that exceed the budget of a batch need steps, and steps need a table that no other process changes.
	if p.cost(e.have) > e.budget {
		if closed, ok := lockdown(want); ok {
			p, next, result = makePlan(e.have, closed, e.flags), closed, ErrLocked
		}
	}
	p.anyway = true
	if err := e.send(x, &p, next); err != nil {
		return err
	}
	// The generation of the namespace is unknown, so the next Check reads the table.
	e.have.generation = nfnl.AnyGeneration
	if _, err := e.restore(x); err != nil {
		return err
	}
	return result
}

// applyOnce brings the table from its known state to want, without a retry.
func (e *Engine) applyOnce(ctx context.Context, x *exchange, want Ruleset) error {
	if e.have == nil || e.stale {
		if err := e.look(x, want); err != nil {
			return err
		}
	}
	if e.family != Inet || e.have.ruleset.isEnforcing() || !want.isEnforcing() {
		return e.change(ctx, x, want) // a virtual machine has no sockets in the pod that tell its connections
	}
	if e.have.foreign { // it may isolate the pod, so a single batch replaces it
		if err := e.change(ctx, x, want); err != nil {
			return err
		}
		_, err := e.restore(x)
		return err
	}
	isFirst := !e.have.exists() && e.isFirst()
	// The rules switch connection tracking on before they judge packets.
	if err := e.change(ctx, x, want.tracking()); err != nil {
		return err
	}
	e.have.underWay = true
	if err := e.seed(x, isFirst); err != nil {
		return err
	}
	return e.change(ctx, x, want)
}

// change brings the table from its known content to want, by way of other tables if addresses move between sets.
func (e *Engine) change(ctx context.Context, x *exchange, want Ruleset) error {
	for _, next := range moves(e.have.ruleset, want) {
		if err := e.changeTo(ctx, x, next); err != nil {
			return err
		}
		e.have.underWay = true
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return e.changeTo(ctx, x, want)
}

// changeTo brings the table to a ruleset, in a single batch, in two (new sets first), or in steps.
func (e *Engine) changeTo(ctx context.Context, x *exchange, want Ruleset) error {
	p := makePlan(e.have, want, e.flags)
	if p.cost(e.have) > e.budget {
		return e.applyInSteps(ctx, x, want)
	}
	if first, between, ok := p.prepare(e.have); ok {
		if err := e.send(x, &first, between); err != nil {
			return err
		}
	}
	if p.isEmpty() {
		// The plan is empty, so the contents are equal. The newer pointers make the next comparison cheap.
		e.have.ruleset = want
		e.have.underWay = false
		return nil
	}
	return e.send(x, &p, want)
}

// applyInSteps sends a batch for each step. It notes each step as the known content, so that the next Apply continues
// from there after a cancellation.
func (e *Engine) applyInSteps(ctx context.Context, x *exchange, want Ruleset) error {
	for next := range steps(e.have, want, e.flags, e.budget) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p := makePlan(e.have, next, e.flags); !p.isEmpty() {
			if err := e.send(x, &p, next); err != nil {
				return err
			}
		}
		e.have.ruleset, e.have.underWay = next, true
	}
	e.have.underWay = false
	return nil
}

// look reads the table back into have, and counts a repair if the table is not as the kernel had acknowledged it.
func (e *Engine) look(x *exchange, want Ruleset) error {
	e.stats.ReadBacks++
	likely := []Ruleset{want}
	if e.have != nil {
		likely = append(likely, e.have.ruleset)
	}
	found, err := x.readBack(e.transport, likely...)
	unstable := errors.Is(err, errUnstable)
	if err != nil && !unstable {
		return err
	}
	// Another owner may change its table, and an Apply that has not finished is no state to compare with.
	if e.have != nil && !e.have.underWay && !found.elsewhere && !want.IsEmpty() {
		p := makePlan(found, e.have.ruleset, e.flags)
		p.takeOver = false // the end of an owner is no change of the table
		if !p.isEmpty() {
			e.stats.Repairs++
		}
	}
	if unstable {
		// Most changes by other processes are changes of other tables. A table that looks right stays.
		if p := makePlan(found, want, e.flags); !p.isEmpty() {
			return err
		}
	}
	e.have, e.stale, e.port = found, false, e.transport.Port()
	return e.resumeCorrections(x)
}

// send sends the plan as a batch. After the acknowledgement the table holds next. If the Engine owns the table, the batch
// is valid at any generation: other processes can change other tables only.
func (e *Engine) send(x *exchange, p *plan, next Ruleset) error {
	generation := e.have.generation
	if e.have.isOwn() {
		generation = nfnl.AnyGeneration
	}
	if err := x.batch.encode(p, generation); err != nil {
		return err
	}
	if err := x.roundTrip(e.transport, p.handles); err != nil {
		e.stats.Refused++
		return err
	}
	e.stats.Batches++
	e.stats.Messages += uint64(x.batch.Count())
	e.stats.Bytes += uint64(x.batch.Len())
	e.sibling.follow(e.have.generation)
	e.have = e.have.after(p, next)
	// With the last policy, the kernel stops to track, and the mark goes.
	if e.family == Inet && next.IsEmpty() {
		// If the mark stays, only the entries of UDP are not made the next time.
		conntrack.RemoveMark(e.transport) //nolint:errcheck // see above
	}
	return nil
}

// follow notes a batch of the sibling: it raised the generation of the namespace by one, and changed nothing in this
// table. Without it, each batch of the sibling would look like a change by another process.
// e may be nil: an Engine without a sibling.
func (e *Engine) follow(generation uint32) {
	if e != nil && e.have != nil && e.have.generation == generation && generation != nfnl.AnyGeneration {
		e.have.generation++
	}
}

// notice marks the table as possibly changed if the socket was replaced: the table that the old socket owned has no
// owner now. It reports whether the table is marked.
func (e *Engine) notice() bool {
	if port := e.transport.Port(); port != e.port {
		e.port, e.stale = port, e.have != nil
	}
	return e.stale
}
