package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// acks records the times at which the kernel commits batches. The kernel notifies every listener in a network namespace of each
// batch (NFNLGRP_NFTABLES), so the measurement needs no code in the agent.
// A commit is the moment from which packets meet the new rules, so it is the end of every measured event. The time is
// taken when the notification is read: it includes the wake-up of the listening thread, and a busy machine makes it
// later.
type acks struct {
	// by namespace, in the order of the hosts
	fds []int

	mu   sync.Mutex
	last []time.Time // by namespace: time of the last batch

	// closed by close; run looks at it at least every 100 ms
	stop chan struct{}
	done sync.WaitGroup
}

// listen opens a listener in the network namespace of each host and starts recording. The caller must close it. A
// batch before the call is not recorded.
func listen(hosts []*lab.Host) (*acks, error) {
	a := &acks{last: make([]time.Time, len(hosts)), stop: make(chan struct{})}
	for _, h := range hosts {
		err := h.Do(func() error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
			if err != nil {
				return err
			}
			a.fds = append(a.fds, fd)
			return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for batches: %w", err), a.closeSockets())
		}
	}
	a.done.Go(a.run)
	return a, nil
}

// run reads notifications until stop is closed.
func (a *acks) run() {
	polled := make([]unix.PollFd, len(a.fds))
	for i, fd := range a.fds {
		polled[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-a.stop:
			return
		default:
		}
		if n, err := unix.Poll(polled, 100); n <= 0 || err != nil {
			continue
		}
		// A single time for all sockets of a round: reading them takes a few microseconds, and a pod that committed
		// during the reading is in the next round.
		now := time.Now()
		for i := range polled {
			if polled[i].Revents == 0 {
				continue
			}
			// Empty the socket. ENOBUFS says that the kernel dropped notifications; the batch happened all the same,
			// so it counts. EAGAIN ends the loop.
			for {
				if n, err := unix.Read(a.fds[i], buf); err != nil && !errors.Is(err, unix.ENOBUFS) || err == nil && n == 0 {
					break
				}
			}
			a.mu.Lock()
			a.last[i] = now
			a.mu.Unlock()
		}
	}
}

// since returns the time of the last batch in each namespace, or false until each namespace has had a batch after start.
func (a *acks) since(start time.Time) ([]time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.last {
		if t.Before(start) {
			return nil, false
		}
	}
	return append([]time.Time(nil), a.last...), true
}

func (a *acks) close() error {
	close(a.stop)
	a.done.Wait()
	return a.closeSockets()
}

func (a *acks) closeSockets() error {
	var errs []error
	for _, fd := range a.fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
