package nfnl

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Elsewhere calls f in a thread that enter has moved to another network namespace, and returns the error of enter or f. It takes the
// thread back afterwards: it may be the first thread of the process, which cannot end before the process, and by whose /proc entry
// other processes find the process's network namespace. A thread that cannot come back ends with its goroutine.
func Elsewhere(enter, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- elsewhere(enter, f) }()
	return <-done
}

func elsewhere(enter, f func() error) error {
	runtime.LockOSThread() // until the thread is back
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := enter(); err != nil {
		return err
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
