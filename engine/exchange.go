package engine

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// exchange holds the buffers for one batch and its answers. Engines take turns with it.
type exchange struct {
	batch     batch
	in        []byte
	canonical canonicals
	elements  []element
	keys      arena
}

var exchanges = sync.Pool{New: func() any { return &exchange{in: make([]byte, maximumMessage)} }}

// roundTrip sends the batch and reads the kernel's answers. It stores the handles of new rules in handles.
func (x *exchange) roundTrip(t *transport, handles map[string][]uint64) error {
	if err := t.growRcvbuf(x.batch.echoes * maximumEcho); err != nil {
		return err
	}
	r := replies{batch: &x.batch, handles: handles}
	if err := x.exchange(t, r.parse); err != nil {
		return err
	}
	return r.err()
}

// mostDrained is the number of datagrams that exchange discards after an error. If the kernel sends more, exchange
// replaces the socket, which ends the dump.
const mostDrained = 16

// exchange sends the messages in the buffer and calls take for each datagram of the answer, until take returns last. After
// an error it discards the remaining datagrams: the next exchange must not find them.
func (x *exchange) exchange(t *transport, take func([]byte) (last bool, err error)) error {
	if err := t.send(x.batch.buf); err != nil {
		return err
	}
	var first error
	for drained := 0; ; {
		n, err := t.receive(x.in)
		last := false
		switch {
		case err == nil && n == 0:
			return first
		case err == nil && first == nil:
			last, err = take(x.in[:n])
		case errors.Is(err, unix.ENOBUFS): // some datagrams are lost, the others follow
		case err != nil:
			return err
		default:
			drained++
		}
		if first == nil {
			first = err
		}
		switch {
		case last && first == nil:
			return nil
		case drained == mostDrained:
			return errors.Join(first, t.reopen())
		}
	}
}
