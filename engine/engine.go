// Package engine brings the nf_tables of one network namespace to a Ruleset: it plans the difference from what the
// kernel acknowledged before, encodes it into one atomic netlink batch, and sends it on a lasting socket. It knows
// nothing of Kubernetes and starts no program.
//
// Ruleset is plain data (ruleset.go); the plan is a pure function (plan.go, plan_rules.go); encode.go and
// encode_sets.go turn it into messages in a flat buffer (wire.go); transport.go owns the socket and reply.go reads what
// the kernel says; readback.go reads the kernel's table into what a plan starts from; render.go prints a Ruleset as nft does.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ApplyError is a Ruleset that did not go in. What was in force before still is, unless the cause says that the kernel
// gave no answer; the next Apply looks.
type ApplyError struct {
	Pod string // as given to Open
	Op  string // what was tried: "open", "apply", "remove"
	Err error  // holds a *MessageError for each message that the kernel refused; errors.Is reaches the errno
}

func (e *ApplyError) Error() string { return fmt.Sprintf("pod %s: %s: %v", e.Pod, e.Op, e.Err) }
func (e *ApplyError) Unwrap() error { return e.Err }

// ErrOwnNamespace is the agent's own network namespace, most often the host's, in place of a pod's.
var ErrOwnNamespace = errors.New("this is the agent's own network namespace, not a pod's")

// Engine owns the table in one network namespace. Its methods must not run at the same time.
type Engine struct {
	pod       string
	transport *transport
	flags     uint32 // of tables that it makes
	have      *table // nil: not known
	stale     bool   // somebody may have changed it since
	stats     Stats
}

// Options are what an Engine must know beside its namespace. The zero value does with any kernel.
type Options struct {
	// Own makes the table this Engine's own: while it is open nobody else, root in the pod included, can change or
	// flush the table; it stays when the Engine is closed. Needs a kernel that Probe says has it.
	Own bool
}

// Stats counts what an Engine did since it was opened.
type Stats struct {
	Batches, Messages, Bytes uint64 // acknowledged by the kernel
	Refused                  uint64 // batches that the kernel refused, or gave no answer to
	ReadBacks                uint64 // times that the table was read
	Restarts                 uint64 // batches that came too late: somebody else had changed something in the namespace
	Repairs                  uint64 // times that the table was found changed by somebody else
}

// Open enters the network namespace that the path is a handle of (/run/netns/NAME, /proc/PID/ns/net) and opens the
// socket in it. It changes nothing there. pod is a name for errors. The namespace lives on while the Engine is open.
func Open(pod, path string, o Options) (*Engine, error) {
	t, err := open(path)
	if err != nil {
		return nil, &ApplyError{Pod: pod, Op: "open", Err: err}
	}
	e := &Engine{pod: pod, transport: t}
	if o.Own {
		e.flags = owned
	}
	return e, nil
}

func open(path string) (*transport, error) {
	netns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	var pods, own unix.Stat_t
	if err := unix.Fstat(int(netns.Fd()), &pods); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return nil, fmt.Errorf("stat own network namespace: %w", err)
	}
	if pods.Dev == own.Dev && pods.Ino == own.Ino {
		return nil, fmt.Errorf("%s: %w", path, ErrOwnNamespace)
	}
	return dial(netns)
}

// Close closes the socket. The table stays.
func (e *Engine) Close() error {
	if err := e.transport.close(); err != nil {
		return &ApplyError{Pod: e.pod, Op: "close", Err: err}
	}
	return nil
}

// Apply makes the table what want says, and sends nothing if it is that already. All that packets see changes in one
// batch; sets that are new come in one before it, while no rule refers to them. The first Apply, and the first after an
// error, reads the kernel's table back: what matches stays, the rest is changed, and a table that holds what no Ruleset
// can is replaced as a whole, in one batch. After an error the last good rules are in force.
func (e *Engine) Apply(ctx context.Context, want Ruleset) error {
	op := "apply"
	if want.IsEmpty() {
		op = "remove"
	}
	if err := ctx.Err(); err != nil {
		return &ApplyError{Pod: e.pod, Op: op, Err: err}
	}
	if err := e.apply(want); err != nil {
		return e.fail(op, err)
	}
	return nil
}

// Stats returns what the Engine did so far.
func (e *Engine) Stats() Stats { return e.stats }

// Finding is what Check found.
type Finding int

const (
	AsApplied      Finding = iota // nothing is other than the last Apply left it
	Repaired                      // somebody changed the table, and it is again what was applied
	OwnedByAnother                // the table is what was applied, and another socket's own: one of an agent that still runs
	TakenOver                     // that one is gone, and the table is this Engine's
)

// Check says whether the table is still what the last Apply left, and if not brings it back to that. It costs one
// question to the kernel while nobody changes anything in the namespace, and two while the table is this Engine's own.
// Elsewhere it reads the table each time that somebody has changed anything.
func (e *Engine) Check(ctx context.Context) (Finding, error) {
	if e.have == nil || ctx.Err() != nil {
		return AsApplied, ctx.Err()
	}
	x := exchanges.Get().(*exchange)
	defer exchanges.Put(x)
	generation, err := x.generation(e.transport)
	if err != nil {
		return AsApplied, e.fail("check", err)
	}
	before, repairs := e.have, e.stats.Repairs
	if !e.stale && !before.elsewhere { // else it may have lost its owner, which no number tells
		if generation == before.generation || before.isOwn() && x.isIntact(e.transport, before) {
			before.generation = generation
			return AsApplied, nil
		}
	}
	e.stale = true
	if err := e.apply(before.ruleset); err != nil {
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

// fail makes the error of an operation, after which the table is not known.
func (e *Engine) fail(op string, err error) error {
	e.have = nil
	return &ApplyError{Pod: e.pod, Op: op, Err: err}
}

// applyTries is how often a batch is made anew because others changed something in the namespace meanwhile. Who does so
// without a pause would else keep every new rule out.
const applyTries = 5

func (e *Engine) apply(want Ruleset) error {
	x := exchanges.Get().(*exchange)
	defer exchanges.Put(x)
	for try := 1; ; try++ {
		err := e.applyOnce(x, want)
		if !errors.Is(err, unix.ERESTART) && !errors.Is(err, errUnstable) {
			return err
		}
		e.stats.Restarts++
		if try == applyTries {
			return e.replace(x, want)
		}
		e.stale = true
	}
}

// replace makes the table anew in one batch, whatever is there and whatever others do meanwhile.
func (e *Engine) replace(x *exchange, want Ruleset) error {
	e.have, e.stale = &table{foreign: true, generation: unknownGeneration}, false
	p := makePlan(e.have, want, e.flags)
	p.anyway = true
	if err := e.send(x, &p, want); err != nil {
		return err
	}
	e.have.generation = unknownGeneration
	return nil
}

func (e *Engine) applyOnce(x *exchange, want Ruleset) error {
	if e.have == nil || e.stale {
		if err := e.look(x, want); err != nil {
			return err
		}
	}
	p := makePlan(e.have, want, e.flags)
	if first, between, ok := p.prepare(e.have); ok {
		if err := e.send(x, &first, between); err != nil {
			return err
		}
	}
	if p.isEmpty() {
		e.have.ruleset = want // equal, and the newer pointers are those to compare the next time
		return nil
	}
	return e.send(x, &p, want)
}

// look reads the table back, and counts what is not as the kernel had acknowledged it.
func (e *Engine) look(x *exchange, want Ruleset) error {
	e.stats.ReadBacks++
	likely := want
	if e.have != nil && !e.have.ruleset.IsEmpty() {
		likely = e.have.ruleset
	}
	found, err := x.readBack(e.transport, likely)
	if err != nil {
		return err
	}
	if e.have != nil && !found.elsewhere { // else who owns it may change it
		p := makePlan(found, e.have.ruleset, e.flags)
		p.takeOver = false // an owner's end is no change
		if !p.isEmpty() {
			e.stats.Repairs++
		}
	}
	e.have, e.stale = found, false
	return nil
}

// send makes the plan a batch; once the kernel acknowledged it, the table is next. Where nobody else can change the
// table, the batch is right at any generation: root in the pod may change other tables as often as it likes.
func (e *Engine) send(x *exchange, p *plan, next Ruleset) error {
	generation := e.have.generation
	if e.have.isOwn() {
		generation = unknownGeneration
	}
	if err := x.batch.encode(p, generation); err != nil {
		return err
	}
	if err := x.roundTrip(e.transport, p.handles); err != nil {
		e.stats.Refused++
		return err
	}
	e.stats.Batches++
	e.stats.Messages += uint64(len(x.batch.messages))
	e.stats.Bytes += uint64(len(x.batch.buf))
	e.have = e.have.after(p, next)
	return nil
}
