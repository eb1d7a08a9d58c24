package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// phase is a part of an attack.
type phase int

const (
	before    phase = iota
	during          // from the first object until the agent is killed, and while the objects are removed
	restarted       // the objects still exist
	after           // they are gone
	phases
)

func (p phase) String() string {
	return [...]string{"before the attack", "during the attack", "after the restart", "after the attack"}[p]
}

// attack runs an attack with all measurements.
// The phases follow the life of the objects of the attack. The counts of packets are over all phases.
//
//	before ─► start ─► hold ─► claims ─► restart of the agent ─► undo ─► after
//	  2 cycles   cycles without pause      2 cycles               cycles   2 cycles
func (r *rig) attack(ctx context.Context, a attack) (*row, error) {
	x := &row{attack: a}
	if err := r.server.check(); err != nil {
		return nil, err
	}
	if a.schema != "" {
		if err := r.useSchema(ctx, a.schema); err != nil {
			return nil, err
		}
	}
	// The tenant has nothing yet but its networks.
	t, err := r.newTenant(ctx)
	if err != nil {
		return nil, err
	}
	// The counters start before the first measurement, so that they cover all phases.
	count, err := r.startCounting(ctx)
	if err != nil {
		return nil, err
	}
	// The flows are in flight until the end of the attack; each datagram of them is counted.
	flows := r.victim.startFlows()
	r.victim.cycle(ctx, &x.phases[before])
	r.victim.cycle(ctx, &x.phases[before])
	// The attack, with the victim measured all the time.
	r.during(ctx, a, t, x)
	r.restart(ctx, x)
	// Events are counted while the namespaces of the attack still have them.
	x.events, err = count.events(ctx)
	// The victim is measured during the removal, too, and twice after it.
	undone := r.undo(ctx, t, x)
	r.victim.cycle(ctx, &x.phases[after])
	r.victim.cycle(ctx, &x.phases[after])
	x.leaks, x.lost = flows.end()
	// A run that is interrupted gives no row: its figures would be of half an attack.
	if err := errors.Join(err, undone, ctx.Err()); err != nil {
		return nil, err
	}
	if a.schema != "" {
		if err := r.useSchema(ctx, publishedCRD); err != nil {
			return nil, err
		}
	}
	count.finish(ctx, x)
	for _, s := range x.phases {
		x.leaks += s.leaks
		x.lost += s.lost
	}
	x.policy, x.notes, x.rounds = t.policy0, t.notes, t.rounds.Load()
	x.faults = append(x.faults, t.faults...)
	// All numbers are known, so the bounds can be checked.
	x.judge(r.agent.limit)
	return x, nil
}

// measuring measures the victim again and again until stop is called.
// It returns at once; stop returns when the cycle that runs has ended. s belongs to the measuring goroutine until
// then.
func (r *rig) measuring(ctx context.Context, s *samples) (stop func()) {
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			r.victim.cycle(ctx, s)
			select {
			case <-end:
				return
			default:
			}
		}
	})
	return func() { close(end); done.Wait() }
}

// startPatience is how long the start of an attack may take.
const startPatience = 90 * time.Second

// during starts the attack and lets it last.
// The victim is measured while the attack starts and lasts.
func (r *rig) during(ctx context.Context, a attack, t *tenant, x *row) {
	stop := r.measuring(ctx, &x.phases[during])
	starting, cancel := context.WithTimeout(ctx, startPatience)
	began := time.Now()
	err := a.start(starting, t)
	cancel()
	x.startTook = time.Since(began)
	if err != nil {
		x.faults = append(x.faults, fmt.Sprintf("the attack could not start: %.300v", err))
	}
	hold := cmp.Or(a.hold, r.options.hold)
	if r.options.profile != "" {
		if err := r.agent.saveProfiles(ctx, r.options.profile, a.name, hold); err != nil {
			x.faults = append(x.faults, err.Error())
		}
	} else {
		pause(ctx, hold)
	}
	stop()
	// A single Event while all objects of the attack exist.
	r.victim.event(ctx, &x.phases[during])
	// Claims of the attack are checked while it lasts, after the cycles.
	for _, c := range t.claims {
		if err := c.fail(ctx); err != nil {
			x.faults = append(x.faults, fmt.Sprintf("%s: %v", c.says, err))
		}
	}
}

// restart kills the agent and starts it while the objects of the attack exist.
// The kill gives the agent no time to remove tables, and no policy may stop being enforced meanwhile. The new agent
// must read the tables back and take them over.
func (r *rig) restart(ctx context.Context, x *row) {
	r.agent.kill()
	start := time.Now()
	if err := r.startAgent(ctx); err != nil && ctx.Err() == nil {
		x.faults = append(x.faults, err.Error())
	}
	x.ready = time.Since(start)
	r.victim.cycle(ctx, &x.phases[restarted])
	r.victim.cycle(ctx, &x.phases[restarted])
}

// undo ends the attack while the victim is measured.
// The removal is a part of the attack: thousands of deletions reach the agent.
func (r *rig) undo(ctx context.Context, t *tenant, x *row) error {
	stop := r.measuring(ctx, &x.phases[during])
	defer stop()
	began := time.Now()
	err := t.undo(ctx)
	x.undoTook = time.Since(began)
	if err != nil {
		err = fmt.Errorf("undo: %w", err)
	}
	return err
}
