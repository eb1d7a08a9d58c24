package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// Result is the outcome of Seed, for metrics and for the set of served ports in the table.
type Result struct {
	Made   int // entries that the kernel did not have
	Turned int // entries that had the ends the wrong way round
	// Served are the ports of UDP sockets that receive from everybody; nil: none. The entries of the peers of these
	// ports may be wrong until TurnServed has corrected them.
	Served []uint16
}

// atOnce is the number of entries in a send. The socket's receive buffer must hold the answers.
const atOnce = 1000

// Seed makes the entries of the connections that the sockets of a namespace are ends of, corrects existing entries that have
// the ends the wrong way round, and makes the mark. c is an nfnetlink socket in the namespace. A rule must have switched
// connection tracking on before: then the kernel tracks the connections that begin while Seed runs. After an error, the
// Result counts the work of Seed.
//
// An established socket of TCP or SCTP proves that its connection was allowed. A UDP socket proves nothing: it can have a peer
// that a policy denies. So Seed makes entries of UDP only if no policy was in force before.
func Seed(c *nfnl.Conn, isFirst bool) (Result, error) {
	var r Result
	// Too many sockets are a failure of the rest only: the first sockets still get their entries, and the error is
	// returned at the end.
	list, err := socketsOf(c)
	if err != nil && !errors.Is(err, errTooMany) {
		return r, err
	}
	r.Served = servedPorts(list)
	problem := err
	open := flows(list)
	if !isFirst {
		open = slices.DeleteFunc(open, func(f flow) bool { return f.protocol == unix.IPPROTO_UDP })
	}
	for part := range slices.Chunk(open, atOnce) {
		if err := r.seed(c, part); err != nil {
			return r, err
		}
	}
	// Packets of UDP servers may have made entries since the kernel began to track, before this call.
	if len(r.Served) > 0 {
		turned, err := TurnServed(c, r.Served)
		r.Turned += turned
		if err != nil {
			return r, err
		}
	}
	// The mark comes last, so it never exists without the entries that Seed could make.
	var m nfnl.Messages
	createMark(&m)
	m.OrFlags(unix.NLM_F_ACK)
	if err := c.Do(&m, nil); err != nil {
		return r, fmt.Errorf("make the mark: %w", err)
	}
	return r, problem
}

// socketsOf returns the sockets in the namespace of an nfnetlink socket.
func socketsOf(c *nfnl.Conn) ([]socket, error) {
	netns, err := c.Namespace()
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	diag, err := nfnl.DialSockDiag(netns)
	if err != nil {
		return nil, err
	}
	defer closeConn(diag)
	return sockets(diag)
}

// closeConn closes a socket that only asked questions, so an error changes nothing.
func closeConn(c *nfnl.Conn) {
	c.Close() //nolint:errcheck // see above
}

// seed makes the entries of some connections in a single send. The kernel handles each message by itself, so an entry
// that exists already (EEXIST) does not stop the others. Packets may have made such an entry the wrong way round since
// tracking began, so it is checked.
func (r *Result) seed(c *nfnl.Conn, list []flow) error {
	// The number of a message is the index of its flow: create writes a single message.
	var m nfnl.Messages
	for i := range list {
		list[i].create(&m)
	}
	m.OrFlags(unix.NLM_F_ACK)
	existing, err := refused(c.Do(&m, nil), unix.EEXIST)
	r.Made += len(list) - len(existing)
	if err != nil {
		return fmt.Errorf("make the entries of connections: %w", err)
	}
	for _, i := range existing {
		turned, err := turn(c, &list[i])
		if err != nil {
			return err
		}
		if turned {
			r.Turned++
		}
	}
	return nil
}

// refused returns the numbers of the messages that the kernel refused with the errno. If the kernel refused a message
// for another reason, or the exchange failed, it returns that error too.
func refused(err error, errno unix.Errno) (numbers []int, other error) {
	var refusals nfnl.Refusals
	if !errors.As(err, &refusals) {
		return nil, err
	}
	for _, m := range refusals {
		if m.Errno != errno {
			return numbers, err
		}
		numbers = append(numbers, m.Index)
	}
	return numbers, nil
}

// turnTries bounds how often turn deletes an entry: between the deletion and the new entry, a packet of the pod can make the
// wrong entry again.
const turnTries = 3

// turn replaces the entry of a connection if it has the ends the wrong way round. It keeps the entry of a connection
// whose addresses or ports are translated: a new entry would lose the translation. Changing the entry in place is
// impossible, since the kernel has no message that exchanges the directions.
func turn(c *nfnl.Conn, f *flow) (bool, error) {
	from, to := f.original()
	for range turnTries {
		// The kernel finds an entry by either direction, and answers with its original direction. So a right entry is
		// found too, with from and to as the flow has them.
		found, err := find(c, f.protocol, to, from)
		if err != nil || found.from != to || found.to != from || found.status&natMask != 0 {
			return false, err
		}
		// The deletion and the new entry go in a single send, which leaves packets of the pod the least time between
		// them.
		var m nfnl.Messages
		begin(&m, msgDelete, 0, "CT_DELETE", f.protocol, to, from)
		m.End()
		f.create(&m)
		m.OrFlags(unix.NLM_F_ACK)
		switch err := c.Do(&m, nil); {
		case err == nil:
			return true, nil
		// EEXIST: a packet came in between. ENOENT: the entry has expired or another process has deleted it. Both are
		// tried again with the entry that exists now.
		case !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT):
			return false, fmt.Errorf("turn the entry of a connection: %w", err)
		}
	}
	return false, nil
}

// find returns the entry that has the direction as its original or reply direction, or the zero value if there is none.
func find(c *nfnl.Conn, protocol uint8, from, to netip.AddrPort) (found entry, err error) {
	var m nfnl.Messages
	begin(&m, msgGet, 0, "CT_GET", protocol, from, to)
	m.End()
	err = c.Ask(&m, msgNew, func(a nfnl.Attrs) (err error) {
		found, err = parseEntry(a)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return entry{}, fmt.Errorf("find the entry of a connection: %w", err)
	}
	return found, nil
}

// IsSeeded reports whether the mark exists: Seed has made the entries, and no process has deleted all entries since.
func IsSeeded(c *nfnl.Conn) (bool, error) {
	var m nfnl.Messages
	begin(&m, msgGet, 0, "CT_GET", protocolExperiment, markFrom, markTo)
	m.End()
	exists, err := c.Exists(&m, msgNew)
	if err != nil {
		return false, fmt.Errorf("find the mark: %w", err)
	}
	return exists, nil
}

// RemoveMark deletes the mark, if it exists. The caller calls it when the last policy of the pod is gone.
func RemoveMark(c *nfnl.Conn) error {
	var m nfnl.Messages
	begin(&m, msgDelete, unix.NLM_F_ACK, "CT_DELETE", protocolExperiment, markFrom, markTo)
	m.End()
	if err := c.Do(&m, nil); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the mark: %w", err)
	}
	return nil
}

// TurnServed corrects the entries of UDP connections that a packet from any of these ports of the pod has made. It
// returns the number of corrected entries. Such an entry takes the pod for the client, because the pod sent the first
// packet that the kernel saw.
func TurnServed(c *nfnl.Conn, ports []uint16) (int, error) {
	if len(ports) == 0 {
		return 0, nil
	}
	// The address is part of the check: a pod that forwards packets has entries of other hosts with the same port.
	own, err := addresses(c)
	if err != nil {
		return 0, err
	}
	// The entries are collected first, since a dump allows no other exchange on the socket.
	var wrong []flow
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var m nfnl.Messages
		m.Begin(msgGet, unix.NLM_F_DUMP, family, 0, nfnl.Label{Op: "CT_GET"})
		m.End()
		err := c.Ask(&m, msgNew, func(a nfnl.Attrs) error {
			e, err := parseEntry(a)
			if err == nil && e.protocol == unix.IPPROTO_UDP && slices.Contains(ports, e.from.Port()) && own[e.from.Addr()] && len(wrong) < mostSockets {
				wrong = append(wrong, flow{protocol: e.protocol, local: e.from, remote: e.to, isIncoming: true})
			}
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("list the connections: %w", err)
		}
	}
	turned := 0
	for i := range wrong {
		ok, err := turn(c, &wrong[i])
		if err != nil {
			return turned, err
		}
		if ok {
			turned++
		}
	}
	return turned, nil
}

// addresses returns the addresses of the pod's interfaces, for TurnServed. Like the list of sockets it has a bound,
// because root in the pod can add any number of addresses.
func addresses(c *nfnl.Conn) (map[netip.Addr]bool, error) {
	netns, err := c.Namespace()
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	route, err := nfnl.DialRoute(netns)
	if err != nil {
		return nil, err
	}
	defer closeConn(route)
	own := map[netip.Addr]bool{}
	err = route.Addresses(func(addr netip.Addr) error {
		if len(own) == mostSockets {
			return errTooMany
		}
		own[addr] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the addresses: %w", err)
	}
	return own, nil
}
