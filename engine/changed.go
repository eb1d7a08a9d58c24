//go:build linux

package engine

import "context"

// Changed reports whether another process may have changed the table since the last Apply or Check, so that Check has
// work to do. It asks the kernel a single question, which also serves the table of the sibling. An Engine that does not
// know its table has nothing to compare, so it returns false.
func (e *Engine) Changed(ctx context.Context) (bool, error) {
	if e.have == nil || ctx.Err() != nil {
		return false, ctx.Err()
	}
	x, done := e.exchange()
	defer done()
	// Both tables are in the namespace, and share its generation.
	generation, err := x.generation(e.transport)
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "check", Err: err}
	}
	if e.isChangedAt(generation) || e.sibling != nil && e.sibling.isChangedAt(generation) {
		return true, nil
	}
	// The generation says nothing about connection tracking, which another process may have emptied.
	due, err := e.isDue()
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "check", Err: err}
	}
	return due, nil
}

// isChangedAt reports whether the table may have changed, given the generation of the namespace.
func (e *Engine) isChangedAt(generation uint32) bool {
	// A table may lose its owner, which does not raise the generation: its socket was replaced (notice), or its owner
	// was another socket (elsewhere).
	return e.have != nil && (e.notice() || generation != e.have.generation || e.have.elsewhere)
}

// isExposed reports whether the table needs frequent questions: another process can change it, or connection tracking has work that is
// due by the clock.
func (e *Engine) isExposed() bool {
	return e.have != nil && !e.have.ruleset.IsEmpty() &&
		(e.notice() || !e.have.isOwn() || e.hasFailedToSeed() || !e.seeding.correction.IsZero())
}
