package nfnl

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel can refuse thousands of messages of one batch. The error stays short, and has each errno.
func TestManyRefusals(t *testing.T) {
	var err Refusals
	for i := range 10_000 {
		err = append(err, &MessageError{Op: "NEWSETELEM", Object: fmt.Sprint("set-", i), Errno: unix.EPERM})
	}
	err = append(err, &MessageError{Op: "NEWRULE", Object: "chain", Errno: unix.ENOENT})
	if n := len(err.Error()); n > 500 {
		t.Errorf("an error of %d bytes", n)
	}
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOENT} {
		if !errors.Is(err, errno) {
			t.Errorf("%v is not in %v", errno, err)
		}
		if !strings.Contains(err.Error(), errno.Error()) {
			t.Errorf("%v is not in the text %q", errno, err)
		}
	}
}
