package engine

import "context"

// Changed reports whether somebody may have changed the table since the last Apply or Check, so that Check has work to do.
// It asks the kernel one question. An Engine that does not know its table has nothing to compare.
func (e *Engine) Changed(ctx context.Context) (bool, error) {
	if e.have == nil || ctx.Err() != nil {
		return false, ctx.Err()
	}
	x := exchanges.Get().(*exchange)
	defer exchanges.Put(x)
	generation, err := x.generation(e.transport)
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "check", Err: err}
	}
	if generation != e.have.generation || e.have.elsewhere { // a table may lose its owner, which no number tells
		return true, nil
	}
	due, err := e.isDue()
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "check", Err: err}
	}
	return due, nil
}
