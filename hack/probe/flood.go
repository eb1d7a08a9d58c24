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

// started is about when the process's first instruction of its own ran.
var started = time.Now()

// packet is what a flood sends.
type packet struct {
	From   string `json:"from"`   // the pod's name
	Number int    `json:"number"` // from 1 on
	Age    int64  `json:"age"`    // of the process, in microseconds
}

// flooded is what a flood prints when it is over. A packet is refused where its sender's own policy drops it.
type flooded struct {
	Tried, Refused int
}

// enough is how many packets make a flood, however slow the machine.
const enough = 100

// flood sends packets to the address, one after another, until the context ends and they are enough.
func flood(ctx context.Context, interval time.Duration, address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer func() { warn(conn.Close()) }()
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

// arrival is what came of one flood.
type arrival struct {
	From        string `json:"from"`
	Packets     int    `json:"packets"`
	First, Last int64  // age of the sender when it sent the first and the last of them, in microseconds
}

// count receives floods until the context ends, and then prints a line for each sender, and one for nobody, which says
// that there are no more.
func count(ctx context.Context, port string) error {
	conn, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { warn(conn.Close()) })
	fmt.Println("ready")
	arrivals, buf := map[string]*arrival{}, make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		var p packet
		if err != nil || json.Unmarshal(buf[:n], &p) != nil {
			continue
		}
		a := arrivals[p.From]
		if a == nil {
			a = &arrival{From: p.From, First: p.Age}
			arrivals[p.From] = a
		}
		a.Packets++
		a.First, a.Last = min(a.First, p.Age), max(a.Last, p.Age)
	}
	out := json.NewEncoder(os.Stdout)
	for _, a := range slices.SortedFunc(maps.Values(arrivals), func(a, b *arrival) int { return cmp.Compare(a.From, b.From) }) {
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return out.Encode(arrival{})
}
