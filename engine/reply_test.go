package engine

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel can refuse thousands of messages of one batch. The error stays short, and has each errno.
func TestManyRefusals(t *testing.T) {
	var r replies
	for i := range 10_000 {
		r.refuse(&MessageError{Op: "NEWSETELEM", Object: fmt.Sprint("set-", i), Errno: unix.EPERM})
	}
	r.refuse(&MessageError{Op: "NEWRULE", Object: "chain", Errno: unix.ENOENT})
	err := r.err()
	if n := len(err.Error()); n > 500 {
		t.Errorf("an error of %d bytes", n)
	}
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOENT} {
		if !errors.Is(err, errno) {
			t.Errorf("%v is not in %v", errno, err)
		}
	}
}
