package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Verdict is the outcome of a probe.
// The zero value is Failed, so a probe without a result never passes for a verdict.
type Verdict int

// The verdicts. Failed means that the probe shows nothing about the policy, for example because the server does not listen.
const (
	Failed Verdict = iota
	Allowed
	Dropped
)

// String is the verdict in a message.
func (v Verdict) String() string {
	return [...]string{"failed", "allowed", "dropped"}[v]
}

// resendAfter is the time without an answer after which a probe sends its datagram again.
// A lost datagram would otherwise make an allowed flow look dropped.
const resendAfter = 200 * time.Millisecond

// Result is the verdict of a probe with details.
type Result struct {
	Verdict Verdict
	Took    time.Duration
	Err     error // cause of Failed or Dropped; nil if allowed
}

// Probe sends real packets from a host to a server and waits for the answer: a TCP connection with an echo, or a UDP echo. No
// answer within the timeout means Dropped. Any number of probes may run concurrently, since a waiting probe holds no thread.
// Err tells why a probe failed, for example that a connection was refused: the packet passed, and no server listened.
func Probe(ctx context.Context, from *Host, to netip.AddrPort, proto Protocol, timeout time.Duration) Result {
	start := time.Now()
	// Dropped packets give no answer, so only the timeout ends such a probe.
	err := probe(ctx, from, to, proto, start.Add(timeout))
	r := Result{Took: time.Since(start), Err: err}
	switch {
	case err == nil:
		r.Verdict = Allowed
	// A probe that the caller canceled shows nothing.
	case ctx.Err() != nil:
		r.Verdict = Failed
	// The kernel returns EPERM to the sender of a datagram that the sender's own output chain dropped.
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EPERM):
		r.Verdict = Dropped
	}
	return r
}

// probe returns nil after an echo. Any other end is an error.
// The deadline is for all steps together.
func probe(ctx context.Context, from *Host, to netip.AddrPort, proto Protocol, deadline time.Time) error {
	f, err := from.socket(to, proto)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.SetDeadline(deadline); err != nil {
		return fmt.Errorf("set the deadline: %w", err)
	}
	defer context.AfterFunc(ctx, func() {
		f.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // if it fails, the probe ends at its deadline
	})()
	if err := connect(f, to); err != nil {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return echo(ctx, f, proto, deadline)
}

// socket opens a non-blocking socket in the host's namespace. It can be used from any thread.
// The caller closes it.
func (h *Host) socket(to netip.AddrPort, proto Protocol) (*os.File, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if proto == UDP {
		kind = unix.SOCK_DGRAM
	}
	fd := -1
	err := h.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = h.bindSocket(fd)
		}
		// The binding is in the namespace, because device names are names in a namespace.
		return err
	})
	if err != nil {
		err = fmt.Errorf("open a socket: %w", err)
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), h.Name), nil
}

// connect waits for the handshake in the runtime's poller.
// It returns the error of the handshake, such as ECONNREFUSED, or os.ErrDeadlineExceeded at the deadline.
func connect(f *os.File, to netip.AddrPort) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	started := false
	err = raw.Write(func(fd uintptr) bool {
		if !started {
			started = true
			// The first call starts the handshake; the runtime calls again when the socket is writable.
			result = unix.Connect(int(fd), sockaddr(to))
			return !errors.Is(result, unix.EINPROGRESS)
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			result = err
		case code != 0:
			result = unix.Errno(code)
		default:
			// A writable socket without an error is connected, unless the wake-up was spurious.
			if _, err := unix.Getpeername(int(fd)); errors.Is(err, unix.ENOTCONN) {
				return false
			}
			result = nil
		}
		return true
	})
	if err != nil {
		return err
	}
	return result
}

// echo sends a message and waits for its echo. It resends a datagram, so that a datagram that the network lost does not count as
// dropped.
// An answer to any of the datagrams is enough.
func echo(ctx context.Context, f *os.File, proto Protocol, deadline time.Time) error {
	message := []byte("probe")
	buf := make([]byte, 64)
	for {
		if _, err := f.Write(message); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		wait := deadline
		if again := time.Now().Add(resendAfter); proto == UDP && again.Before(deadline) {
			wait = again
		}
		if err := f.SetReadDeadline(wait); err != nil {
			return fmt.Errorf("set the deadline: %w", err)
		}
		_, err := f.Read(buf)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil || !time.Now().Before(deadline) {
			return fmt.Errorf("receive: %w", err)
		}
	}
}

// sockaddr turns an address into the form of the system calls.
func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
}
