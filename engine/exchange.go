package engine

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// exchange is the memory for one batch and the answers to it, used by one Engine after another.
type exchange struct {
	batch     batch
	in        []byte
	canonical canonicals
	elements  []element
	keys      arena
}

var exchanges = sync.Pool{New: func() any { return &exchange{in: make([]byte, maximumMessage)} }}

// roundTrip sends the batch and reads all that the kernel says to it. Handles of new rules are put into handles.
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

// mostDrained is how many datagrams are read after an error and thrown away. The rest of a longer dump goes with the
// socket.
const mostDrained = 16

// exchange sends what is in the buffer and gives each datagram that comes back to take, until take says that it was the
// last one. After an error it reads the other datagrams, so that none is left for the next exchange to find.
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
		case errors.Is(err, unix.ENOBUFS): // some are lost, the rest can be read
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
