package nfnl

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// MaximumMessage is the size of a receive buffer, bytes. The kernel builds datagrams of at most 32 KiB. A read into a
// smaller buffer would cut a datagram off without an error.
const MaximumMessage = 64 << 10

// receiveBuffers are shared by all sockets, because an agent has a socket for each pod and few of them are busy at a
// time. A buffer is in use from a send to the last answer.
var receiveBuffers = sync.Pool{New: func() any { return new([MaximumMessage]byte) }}

// Do sends messages that change something, and reads the answers. The last message must ask for an acknowledgement
// (NLM_F_ACK, see EndBatch), and no other message may. The error is nil only if the kernel accepted all messages; it holds a
// *MessageError for each message that the kernel refused. Do calls visit, unless nil, with each answer that is no error. The
// body of the answer is valid only during the call.
func (c *Conn) Do(m *Messages, visit func(Answer) error) error {
	a := answers{to: m}
	if err := c.exchange(m, func(b []byte) (last bool, err error) { return a.parse(b, visit) }); err != nil {
		return err
	}
	return a.err()
}

// Ask sends questions and calls visit with the attributes of each answer of a type. The attributes are valid only during the
// call. A dump must be the only question. If visit fails, Ask returns its error, and the next exchange works as usual.
//
// Ask ignores NLM_F_DUMP_INTR, which the kernel also sets after changes of tables that are not in the dump. Callers that need a
// consistent answer compare the generation before and after.
func (c *Conn) Ask(m *Messages, answer uint16, visit func(Attrs) error) error {
	return c.dump(m, answer, func(reply Answer) error {
		attrs, err := ParseAttrs(reply.Content())
		if err != nil {
			return err
		}
		return visit(attrs)
	})
}

// Exists sends a question about an object, and reports whether the kernel knows the object: it answers with a message of the type,
// or with ENOENT. It does not read the attributes.
func (c *Conn) Exists(m *Messages, answer uint16) (exists bool, err error) {
	err = c.dump(m, answer, func(Answer) error {
		exists = true
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return exists, err
}

// dump sends questions and calls visit with each answer of a type. The answers end with NLMSG_DONE, with an error, or with a single
// message to the last question, unless this is a dump: the kernel does not set NLM_F_MULTI in every part of a dump of SCTP sockets.
func (c *Conn) dump(m *Messages, answer uint16, visit func(Answer) error) error {
	a := answers{to: m}
	isDump := m.isDump()
	err := c.exchange(m, func(b []byte) (last bool, err error) {
		err = EachMessage(b, func(reply Answer) error {
			isLast := reply.Sequence == m.seq
			switch {
			case reply.Sequence == 0 || reply.Sequence > m.seq:
				return nil // the answer to an earlier question
			case reply.Type == unix.NLMSG_ERROR:
				last = isLast
				return a.readError(reply)
			case reply.Type == unix.NLMSG_DONE:
				last = isLast
				return a.readDone(reply)
			case reply.Type != answer:
				return nil
			}
			last = isLast && !isDump && reply.Flags&unix.NLM_F_MULTI == 0
			return visit(reply)
		})
		return last, err
	})
	if err != nil {
		return err
	}
	if len(a.refused) > 0 {
		return a.refused
	}
	return nil
}

// mostDrained is the number of datagrams that exchange discards after an error. If the kernel sends more, exchange
// replaces the socket, which ends the dump.
const mostDrained = 16

// exchange sends messages and calls take with each datagram of the answer, until take returns last. After an error it
// discards the remaining datagrams: the next exchange must not take them for its own answers. A read never waits, since
// the kernel has queued its answers before send returns; only a long dump produces its next part when a part is read.
// An empty queue therefore ends the exchange.
func (c *Conn) exchange(m *Messages, take func([]byte) (last bool, err error)) error {
	if err := c.send(m.buf); err != nil {
		return err
	}
	in := receiveBuffers.Get().(*[MaximumMessage]byte)
	defer receiveBuffers.Put(in)
	var first error
	// first is the error that exchange returns. drained counts the datagrams that came after it.
	for drained := 0; ; {
		n, err := c.receive(in[:])
		last := false
		switch {
		case err == nil && n == 0:
			return first
		case err == nil && first == nil:
			last, err = take(in[:n])
		case errors.Is(err, unix.ENOBUFS): // some datagrams are lost, the others follow
		case err != nil:
			return err
		default:
			drained++
		}
		// Only the first error counts: later errors are its consequences, such as answers that lack their beginning.
		if first == nil {
			first = err
		}
		switch {
		case last && first == nil:
			return nil
		case drained == mostDrained:
			return errors.Join(first, c.Reopen())
		}
	}
}
