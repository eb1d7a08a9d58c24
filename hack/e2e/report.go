package main

import (
	"fmt"
	"time"
)

// report prints and counts the checks. It is for a single goroutine.
// The zero value with a start time is ready for use.
type report struct {
	start          time.Time
	passed, failed int
}

// check prints that the named condition holds, or the error.
// A failed check does not stop the run.
func (r *report) check(name string, err error) {
	if err != nil {
		r.failed++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return
	}
	r.passed++
	fmt.Printf("ok   %s\n", name)
}

// note prints the progress of the run.
// The time is since the start of the run.
func (r *report) note(format string, args ...any) {
	fmt.Printf("---- %s (%.1f s)\n", fmt.Sprintf(format, args...), time.Since(r.start).Seconds())
}
