package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MessageError is one message of a batch that the kernel refused, and with it the batch.
type MessageError struct {
	Op     string     // the message: NEWSETELEM, DELRULE, …
	Object string     // the set, chain or table that it is about
	Errno  unix.Errno // what the kernel said
	Detail string     // the text of the extended acknowledgement, if any
	Offset uint32     // of the attribute that is at fault, in bytes from the message's start; 0: not said
}

func (e *MessageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %v", e.Op, e.Object, e.Errno)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if e.Offset != 0 {
		fmt.Fprintf(&b, " (attribute at byte %d)", e.Offset)
	}
	return b.String()
}

func (e *MessageError) Unwrap() error { return e.Errno }

// errNoAnswer is a batch that the kernel neither acknowledged nor refused: whether it is in force is not known.
var errNoAnswer = errors.New("no acknowledgement from the kernel")

// replies collects what the kernel says to one batch.
type replies struct {
	batch   *batch
	acked   bool
	refused []error             // the first of them, and one for each errno
	more    int                 // refused messages beside these
	handles map[string][]uint64 // where those of new rules go
}

// err is nil only if the batch is in force as a whole. The kernel acknowledges the last message also when another one
// failed, so that alone says nothing.
func (r *replies) err() error {
	switch {
	case r.more > 0:
		return errors.Join(append(slices.Clip(r.refused), fmt.Errorf("%d other messages of the batch were refused", r.more))...)
	case len(r.refused) > 0:
		return errors.Join(r.refused...)
	}
	if !r.acked {
		return errNoAnswer
	}
	return nil
}

// mostRefused bounds the text of an error: the kernel can refuse every message of a batch, and a log line has the text.
const mostRefused = 5

func (r *replies) refuse(e *MessageError) {
	isKnown := func(other error) bool { return errors.Is(other, e.Errno) }
	if len(r.refused) >= mostRefused && slices.ContainsFunc(r.refused, isKnown) {
		r.more++
		return
	}
	r.refused = append(r.refused, e)
}

// parse takes one received datagram of messages. It says whether that was the last one: the kernel answers the last
// message after all others, and after the echoes of the rules.
func (r *replies) parse(b []byte) (last bool, err error) {
	err = eachMessage(b, func(m netlinkMessage) error {
		switch m.typ {
		case unix.NLMSG_ERROR:
			return r.errorMessage(m)
		case nftMessage | unix.NFT_MSG_NEWRULE:
			return r.echo(m)
		}
		return nil
	})
	return r.acked && len(r.refused) == 0, err
}

// message is the one of the batch with that sequence number, or nil.
func (r *replies) message(seq uint32) *message {
	if seq == 0 || int(seq) > len(r.batch.messages) {
		return nil
	}
	return &r.batch.messages[seq-1]
}

// done reads the end of a dump: the kernel reports there if it had to stop early.
func (r *replies) done(reply netlinkMessage) error {
	if len(reply.body) < 4 {
		return nil
	}
	if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(reply.body))); errno != 0 {
		m := r.message(reply.seq)
		r.refuse(&MessageError{Op: m.op, Object: m.object, Errno: errno})
	}
	return nil
}

// errorMessage reads struct nlmsgerr and the attributes behind it (linux/netlink.h).
func (r *replies) errorMessage(reply netlinkMessage) error {
	body := reply.body
	if len(body) < 4+nlmsgHdrLen {
		return fmt.Errorf("netlink error of %d bytes", len(body))
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	m := r.message(reply.seq)
	if m == nil {
		return nil // a late answer to an earlier batch
	}
	switch {
	case errno == 0:
		r.acked = true // only the last one asks for it
		return nil
	case errno == unix.ENOENT && m.optional:
		return nil
	}
	e := &MessageError{Op: m.op, Object: m.object, Errno: errno}
	if reply.flags&unix.NLM_F_ACK_TLVS != 0 {
		attrs := body[4+nlmsgHdrLen:]
		if reply.flags&unix.NLM_F_CAPPED == 0 { // the refused message's own content comes first
			content := align(int(binary.NativeEndian.Uint32(body[4:]))) - nlmsgHdrLen
			attrs = attrs[min(len(attrs), max(0, content)):]
		}
		err := eachAttr(attrs, func(typ uint16, value []byte) {
			switch {
			case typ == unix.NLMSGERR_ATTR_MSG:
				e.Detail = strings.TrimRight(string(value), "\x00")
			case typ == unix.NLMSGERR_ATTR_OFFS && len(value) >= 4:
				e.Offset = binary.NativeEndian.Uint32(value)
			}
		})
		if err != nil {
			return err
		}
	}
	r.refuse(e)
	return nil
}

// echo reads the handle of a rule that the batch added.
func (r *replies) echo(reply netlinkMessage) error {
	m := r.message(reply.seq)
	if m == nil || m.rule == nil {
		return nil
	}
	return reply.eachAttr(func(typ uint16, value []byte) {
		if typ == unix.NFTA_RULE_HANDLE && len(value) == 8 {
			r.handles[m.rule.chain][m.rule.index] = binary.BigEndian.Uint64(value)
		}
	})
}
