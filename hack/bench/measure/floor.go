package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// floorWay is the least cost of a change: a system call sends prepared messages, and a second system call reads the
// acknowledgement.
// No implementation can be faster with the same messages. The figure would be too high if a batch had more messages
// than necessary, and too low if it left another table than the engine; check excludes the latter.
type floorWay struct {
	*fleet
	world *world
	// by pod; nil: not open
	sockets []*socket
	// computed once for each pair of states, outside the measured time
	deltas map[[2]state]*delta
	// the same bytes for all pods
	batches map[[2]state][]byte // batches without handles
	// with the handles of the pod, if the event adds or deletes rules
	next [][]byte // next batch of each pod
	asks [][]byte // the dump requests of an agent at its start
	// sent so far
	bytes uint64
}

// newFloorWay returns the way. It opens no socket before the first event.
func newFloorWay(f *fleet, w *world) *floorWay {
	y := &floorWay{
		fleet: f, world: w,
		sockets: make([]*socket, len(f.hosts)),
		deltas:  map[[2]state]*delta{},
		batches: map[[2]state][]byte{},
		next:    make([][]byte, len(f.hosts)),
	}
	// The base state is what a restart finds, so the sets to read are known before.
	rs := w.rulesets[base][0]
	for _, typ := range []int{unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET} {
		y.asks = append(y.asks, encodeDump(typ, ""))
	}
	for _, s := range rs.Sets {
		y.asks = append(y.asks, encodeDump(unix.NFT_MSG_GETSETELEM, s.Name))
	}
	return y
}

// encodeDump returns a request for all objects of a kind. Attributes 1 and 2 are the names of the table and the set in all kinds.
// An empty set asks without the name of a set.
func encodeDump(typ int, set string) []byte {
	m := &messages{}
	m.message(typ, unix.NLM_F_DUMP, func() {
		m.text(1, engine.TableName)
		if set != "" {
			m.text(2, set)
		}
	})
	return m.buf
}

func (*floorWay) name() string   { return "floor" }
func (y *floorWay) sent() uint64 { return y.bytes }

// prepare encodes everything that the event sends. In a restart, the dump requests are all that is sent.
func (y *floorWay) prepare(e event) error {
	if y.at != e.from {
		if err := y.move(e.from); err != nil {
			return err
		}
	}
	if e == restartNoChange {
		return y.closeSockets()
	}
	if err := y.plan(e.from, e.to); err != nil {
		return err
	}
	if e.reopen {
		return y.closeSockets()
	}
	return nil
}

// move deletes the table, then creates the table of the state.
// The way over the absent state needs no difference, so it works between any two states.
func (y *floorWay) move(to state) error {
	if err := y.openSockets(); err != nil {
		return err
	}
	for _, step := range [][2]state{{y.at, absent}, {absent, to}} {
		if step[0] == step[1] {
			continue
		}
		if err := y.plan(step[0], step[1]); err != nil {
			return err
		}
		if err := y.send(step[1]); err != nil {
			return err
		}
	}
	return nil
}

// plan prepares the batches of all pods.
// A batch that needs no handles is encoded once and sent to all pods. Handles differ from pod to pod and from run to
// run, so a change of rules is encoded for each pod each time.
func (y *floorWay) plan(from, to state) error {
	if err := y.openSockets(); err != nil {
		return err
	}
	// The first plan of a step encodes it; later plans find it.
	step := [2]state{from, to}
	if y.batches[step] == nil && y.deltas[step] == nil {
		switch {
		case to == absent:
			y.batches[step] = encodeNoTable()
		case from == absent:
			y.batches[step] = encodeTable(y.world.rulesets[to][0])
		default:
			y.deltas[step] = newDelta(y.world.rulesets[from][0], y.world.rulesets[to][0])
			if !y.deltas[step].hasRules() {
				y.batches[step] = encode(y.deltas[step], nil, nil)
			}
		}
	}
	for i := range y.next {
		if y.next[i] = y.batches[step]; y.next[i] != nil {
			continue
		}
		// A change of rules names the handles of this pod's rules, so it cannot be shared.
		h, err := y.sockets[i].handles()
		if err != nil {
			return err
		}
		y.next[i] = encode(y.deltas[step], h, nil)
	}
	return nil
}

// handles reads the handles of all rules.
// The kernel dumps the rules of a chain in their order.
func (s *socket) handles() (handles, error) {
	h := handles{}
	err := s.dump(encodeDump(unix.NFT_MSG_GETRULE, ""), func(body []byte) {
		a := attrsOf(body)
		chain := strings.TrimRight(string(a[unix.NFTA_RULE_CHAIN]), "\x00")
		h[chain] = append(h[chain], binary.BigEndian.Uint64(a[unix.NFTA_RULE_HANDLE]))
	})
	return h, err
}

// run opens sockets if the event starts without them, and sends what prepare encoded.
func (y *floorWay) run(e event) error {
	if e.reopen {
		if err := y.openSockets(); err != nil {
			return err
		}
	}
	if e == restartNoChange {
		return y.readAll()
	}
	return y.send(e.to)
}

// send sends the next batch of each pod and waits for each acknowledgement.
func (y *floorWay) send(to state) error {
	if err := each(len(y.next), func(i int) error { return y.sockets[i].exchange(y.next[i]) }); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	for _, b := range y.next {
		y.bytes += uint64(len(b))
	}
	y.at = to
	return nil
}

// readAll dumps chains, rules, sets and the elements of each set, and throws the answers away. An agent must also
// understand them, which the floor does not pay for.
func (y *floorWay) readAll() error {
	return each(len(y.sockets), func(i int) error {
		for _, ask := range y.asks {
			if err := y.sockets[i].dump(ask, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (y *floorWay) openSockets() error {
	return each(len(y.sockets), func(i int) (err error) {
		if y.sockets[i] == nil {
			y.sockets[i], err = openSocket(y.hosts[i])
		}
		return err
	})
}

func (y *floorWay) closeSockets() error {
	var errs []error
	for i, s := range y.sockets {
		if s != nil {
			errs = append(errs, s.close())
			y.sockets[i] = nil
		}
	}
	return errors.Join(errs...)
}

func (y *floorWay) close() error { return y.closeSockets() }
