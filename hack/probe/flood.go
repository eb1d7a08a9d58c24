package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// started is about the time of the first instruction of the process.
// It is a package variable, so it is set before main runs.
var started = time.Now()

// packet is the payload of a datagram of a flood.
// The receiver tells senders apart by the name, and sees by the age how long after the start a packet left.
type packet struct {
	From   string `json:"from"`   // name of the pod
	Number int    `json:"number"` // from 1 on
	Age    int64  `json:"age"`    // of the process, in microseconds
}

// flooded is the summary that a flood prints at its end. Refused counts packets that an egress policy of the sender dropped.
type flooded struct {
	Tried, Refused int
}

// enough is the least number of packets in a flood, also on a slow machine.
const enough = 100

// flood sends packets to the address until the context ends, and at least enough packets.
// Write errors do not end it: a packet that is refused now may pass later. With ready, it prints a line before the first packet.
func flood(ctx context.Context, interval time.Duration, address string, ready bool) error {
	// In a pod, the host name is the name of the pod.
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer func() { warn(conn.Close()) }()
	if ready {
		fmt.Println("ready")
	}
	var f flooded
	for ; ctx.Err() == nil || f.Tried < enough; time.Sleep(interval) {
		f.Tried++
		data, err := json.Marshal(packet{name, f.Tried, time.Since(started).Microseconds()})
		if err != nil {
			return err
		}
		switch _, err := conn.Write(data); {
		case errors.Is(err, syscall.EPERM):
			f.Refused++
		case err != nil:
			warn(err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// arrival counts the received packets of a flood.
type arrival struct {
	From        string `json:"from"`
	Packets     int    `json:"packets"`
	First, Last int64  // age of the sender at the first and the last packet, in microseconds
}

// count receives floods until the context ends. Then it prints a line for each sender, and an empty arrival as the end mark.
// The socket is in the network namespace of the caller, so no pod needs a receiver of its own.
func count(ctx context.Context, port string) error {
	conn, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	// Closing the socket ends the read below.
	context.AfterFunc(ctx, func() { warn(conn.Close()) })
	// The test waits for this line before it starts senders.
	fmt.Println("ready")
	arrivals, buf := map[string]*arrival{}, make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		var p packet
		// A datagram that is not of a flood is skipped.
		if err != nil || json.Unmarshal(buf[:n], &p) != nil {
			continue
		}
		a := arrivals[p.From]
		if a == nil {
			a = &arrival{From: p.From, First: p.Age}
			arrivals[p.From] = a
		}
		a.Packets++
		// Packets may arrive in another order than they were sent.
		a.First, a.Last = min(a.First, p.Age), max(a.Last, p.Age)
	}
	out := json.NewEncoder(os.Stdout)
	for _, a := range slices.SortedFunc(maps.Values(arrivals), func(a, b *arrival) int { return cmp.Compare(a.From, b.From) }) {
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	// Without the end mark, a reader cannot tell a cut output from a sender whose packets did not arrive.
	return out.Encode(arrival{})
}
