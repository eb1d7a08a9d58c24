package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// MessageError is the error of a message that the kernel refused.
type MessageError struct {
	Op     string     // from the Label: NEWSETELEM, DELRULE, …
	Object string     // from the Label: the set, chain or table
	Errno  unix.Errno // from the kernel
	Detail string     // the text of the extended acknowledgement, if any
	Offset uint32     // of the wrong attribute, in bytes from the start of the message; 0: unknown
	Index  int        // of the message in its list, from 0
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

// Unwrap returns the Errno, so that errors.Is(err, unix.EEXIST) finds it.
func (e *MessageError) Unwrap() error { return e.Errno }

// Refusals is the error of an exchange: the errors of the messages that the kernel refused, in the order of the
// messages. For a batch of nf_tables, a single refusal means that nothing of the batch is in force. Other subsystems,
// such as connection tracking, carry out each message by itself, so the messages that are not in the list are in force.
type Refusals []*MessageError

// mostTexts is the number of messages in the text of Refusals. The kernel can refuse every message of a batch, and log lines
// have the text.
const mostTexts = 5

// Error returns the texts of the first messages, and of the first message for each other errno.
func (r Refusals) Error() string {
	var texts []string
	known := map[unix.Errno]bool{}
	for _, e := range r {
		if len(texts) < mostTexts || !known[e.Errno] {
			texts = append(texts, e.Error())
			known[e.Errno] = true
		}
	}
	if n := len(r) - len(texts); n > 0 {
		texts = append(texts, fmt.Sprintf("the kernel refused %d other messages", n))
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the error of each message.
func (r Refusals) Unwrap() []error {
	errs := make([]error, len(r))
	for i, e := range r {
		errs[i] = e
	}
	return errs
}

// ErrNoAnswer means that the kernel neither acknowledged nor refused the messages: they may be in force. A caller must
// read the state back before it relies on the old or the new state.
var ErrNoAnswer = errors.New("no acknowledgement from the kernel")

// answers collects the kernel's answers to the messages of an exchange.
type answers struct {
	to      *Messages
	acked   bool // the kernel has acknowledged the last message
	refused Refusals
}

// err is nil only if all messages are in force. The kernel acknowledges the last message even if an earlier message failed,
// so the acknowledgement alone proves nothing.
func (a *answers) err() error {
	if len(a.refused) > 0 {
		return a.refused
	}
	if !a.acked {
		return ErrNoAnswer
	}
	return nil
}

// parse reads a datagram, and calls visit with each answer that is no error. It reports whether the datagram was the last:
// the kernel acknowledges the last message after all other answers.
func (a *answers) parse(datagram []byte, visit func(Answer) error) (last bool, err error) {
	err = EachMessage(datagram, func(m Answer) error {
		switch {
		case m.Type == unix.NLMSG_ERROR:
			return a.readError(m)
		case visit != nil:
			return visit(m)
		}
		return nil
	})
	return a.acked && len(a.refused) == 0, err
}

// readDone reads the end of a dump (NLMSG_DONE). It holds an error number if the kernel stopped early: without this
// check, a list that was cut short would pass for the whole list.
func (a *answers) readDone(m Answer) error {
	if len(m.Body) < 4 {
		return nil
	}
	// The kernel writes errors as negative numbers (-ENOENT), in host byte order.
	l := a.to.label(m.Sequence)
	if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Body))); errno != 0 && l != nil {
		a.refused = append(a.refused, &MessageError{Op: l.Op, Object: l.Object, Errno: errno})
	}
	return nil
}

// readError reads struct nlmsgerr and the attributes behind it (linux/netlink.h):
//
//	│ error, int32 │ struct nlmsghdr of the refused message │ its content, unless NLM_F_CAPPED │ attributes, if NLM_F_ACK_TLVS │
//
// An error of 0 is an acknowledgement.
func (a *answers) readError(m Answer) error {
	body := m.Body
	if len(body) < 4+messageHeader {
		return fmt.Errorf("netlink error of %d bytes", len(body))
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	l := a.to.label(m.Sequence)
	if l == nil { // the sequence numbers of each exchange start again from 1
		return nil // a late answer to earlier messages
	}
	switch {
	case errno == 0:
		a.acked = true // only the last message asks for it
		return nil
	case errno == unix.ENOENT && l.Optional:
		return nil
	}
	e := &MessageError{Op: l.Op, Object: l.Object, Errno: errno, Index: int(m.Sequence) - 1}
	if m.Flags&unix.NLM_F_ACK_TLVS != 0 {
		attrs := body[4+messageHeader:]
		if m.Flags&unix.NLM_F_CAPPED == 0 { // the content of the refused message comes first
			content := align(int(binary.NativeEndian.Uint32(body[4:]))) - messageHeader
			attrs = attrs[min(len(attrs), max(0, content)):]
		}
		err := EachAttr(attrs, func(typ uint16, value []byte) {
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
	a.refused = append(a.refused, e)
	return nil
}
