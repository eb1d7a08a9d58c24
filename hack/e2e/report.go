package main

import (
	"fmt"
	"time"
)

// report prints the checks as they are made, and counts them.
type report struct {
	start          time.Time
	passed, failed int
}

// check says that the named thing holds, or why not.
func (r *report) check(name string, err error) {
	if err != nil {
		r.failed++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return
	}
	r.passed++
	fmt.Printf("ok   %s\n", name)
}

// note says how far the run is.
func (r *report) note(format string, args ...any) {
	fmt.Printf("---- %s (%.1f s)\n", fmt.Sprintf(format, args...), time.Since(r.start).Seconds())
}
