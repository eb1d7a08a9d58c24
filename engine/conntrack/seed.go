package conntrack

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// atOnce is the number of messages in one send. The socket's buffers must hold them and the answers.
const atOnce = 256

// Seed makes the entries of all connections of the pod's sockets in a network namespace, and corrects entries that have the
// ends the wrong way round. It returns the number of entries that it made.
func Seed(netns *os.File) (made int, err error) {
	config := &netlink.Config{NetNS: int(netns.Fd())}
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, config)
	if err != nil {
		return 0, fmt.Errorf("open sock_diag socket: %w", err)
	}
	defer diag.Close()
	list, err := sockets(diag)
	if err != nil {
		return 0, err
	}
	open := flows(list)
	if len(open) == 0 {
		return 0, nil
	}
	track, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return 0, fmt.Errorf("open conntrack socket: %w", err)
	}
	defer track.Close()
	for part := range slices.Chunk(open, atOnce) {
		n, err := seed(track, part)
		made += n
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// seed makes entries for connections.
func seed(c *netlink.Conn, list []flow) (made int, err error) {
	messages := make([]netlink.Message, 0, len(list))
	for i := range list {
		m, err := list[i].create()
		if err != nil {
			return 0, err
		}
		m.Header.Flags |= netlink.Acknowledge
		messages = append(messages, m)
	}
	sent, err := c.SendMessages(messages)
	if err != nil {
		return 0, fmt.Errorf("send %d connections to the kernel: %w", len(list), err)
	}
	var wrong []flow
	for i := range sent {
		_, err := c.Receive()
		switch {
		case err == nil:
			made++
		case errors.Is(err, unix.EEXIST):
			wrong = append(wrong, list[i])
		default:
			return made, fmt.Errorf("make the entry of a connection: %w", err)
		}
	}
	for i := range wrong {
		turned, err := turn(c, &wrong[i])
		if err != nil {
			return made, err
		}
		if turned {
			made++
		}
	}
	return made, nil
}

// turn replaces an existing entry if its ends are the wrong way round. An entry that translates addresses stays: its
// original direction is not that of the socket.
func turn(c *netlink.Conn, f *flow) (bool, error) {
	from, to := f.original()
	get, err := message(ctGet, 0, f.protocol, to, from, nil)
	if err != nil {
		return false, err
	}
	answers, err := c.Execute(get)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil || len(answers) == 0 {
		return false, fmt.Errorf("ask for the entry of a connection: %w", err)
	}
	found, err := parseEntry(answers[0].Data)
	if err != nil || found.from != to || found.to != from || found.status&isNAT != 0 {
		return false, err
	}
	remove, err := message(ctDelete, netlink.Acknowledge, f.protocol, to, from, nil)
	if err != nil {
		return false, err
	}
	if _, err := c.Execute(remove); err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("delete the entry of a connection: %w", err)
	}
	create, err := f.create()
	if err != nil {
		return false, err
	}
	create.Header.Flags |= netlink.Acknowledge
	if _, err := c.Execute(create); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("make the entry of a connection: %w", err)
	}
	return true, nil
}
