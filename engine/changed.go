package engine

import "context"

// Changed reports whether somebody may have changed the table since the last Apply or Check, so that Check has work to do.
// It asks the kernel one question, which does for the table of a sibling, too. An Engine that does not know its table has
// nothing to compare.
func (e *Engine) Changed(ctx context.Context) (bool, error) {
	if e.have == nil || ctx.Err() != nil {
		return false, ctx.Err()
	}
	x, done := e.exchange()
	defer done()
	generation, err := x.generation(e.transport)
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "check", Err: err}
	}
	if e.isChangedAt(generation) || e.sibling != nil && e.sibling.isChangedAt(generation) {
		return true, nil
	}
	due, err := e.isDue()
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "check", Err: err}
	}
	return due, nil
}

// isChangedAt reports whether the table may have changed, given the generation of the namespace.
func (e *Engine) isChangedAt(generation uint32) bool {
	// A table may lose its owner, which no number tells.
	return e.have != nil && (e.notice() || generation != e.have.generation || e.have.elsewhere)
}
