package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// packetRow is a row of the table of packets: the cost of a packet up to the server's socket, if the last of all policies
// allows it.
type packetRow struct {
	Policies int           `json:"policies"`
	Peers    int           `json:"peers"` // of each policy
	Ports    string        `json:"ports"` // own: each policy has other ports; shared: all policies have the same ports
	Flow     string        `json:"flow"`
	Rules    string        `json:"rules"`
	Wall     time.Duration `json:"ns"`
	// CPU has the whole receive path of the kernel, not only the rules; the row without rules tells the difference.
	CPU time.Duration `json:"cpu_ns"`
	// Rate is a second divided by CPU.
	Rate int `json:"packets_per_second"` // of a single core
}

// A turn is short, so that other load on the machine slows all lanes alike.
const (
	newFlows    = 1 << 14 // largest number of packets in a turn, each of another flow
	fewestFlows = 1 << 8  // smallest number, if a turn would take longer than turnTime
	turnTime    = 30 * time.Millisecond
	oldFlows    = 64   // established flows
	stride      = 7919 // distance between consecutive senders: a prime, so that all peers send
	// the figure of a lane is the median of its turns
	packetTurns = 11
)

// measureDatapath measures 1 to 100 policies of 10 to 10,000 peers each. The packet is always allowed by the last
// policy, so a style that tries policy by policy pays for all of them.
func measureDatapath(o options) (rows []packetRow, err error) {
	counts, peers := []int{1, 10, 100}, []int{10, 1_000, 10_000}
	if o.smoke {
		counts, peers = counts[:1], peers[:1]
	}
	for _, policies := range counts {
		for _, peers := range peers {
			if policies*peers > 100_000 && !o.full {
				continue
			}
			// Policies that share their ports can share a lookup; policies with own ports cannot.
			for _, shared := range []bool{false, true} {
				// A single policy has nobody to share with.
				if shared && policies == 1 {
					continue
				}
				fmt.Fprintf(os.Stderr, "packets: %d policies of %d peers, shared ports: %t\n", policies, peers, shared)
				more, err := measurePackets(policies, peers, shared)
				if err != nil {
					return nil, err
				}
				rows = append(rows, more...)
			}
		}
	}
	return rows, nil
}

// lane is a link whose server has rules in a single style.
// All lanes carry the same packets; only the rules of the server differ.
type lane struct {
	*link
	style ruleStyle
	*sender
	*sink
	// fresh has a packet of each new flow; turn shortens it for slow rules. old has a packet of each established
	// flow.
	fresh, old       []mmsghdr
	frames           [][]byte // the lists refer to these frames
	costNew, costOld []cost
}

// measurePackets measures all styles of rules side by side, in a lab of their own. A style is left out if its most is
// exceeded.
func measurePackets(policies, peers int, shared bool) (rows []packetRow, err error) {
	w := newWorld(size{Layout: scattered, Peers: policies * peers, Pods: 1, Policies: policies, Interfaces: 1, Ports: 2 * policies, SharedPorts: shared})
	ports := map[bool]string{false: "own", true: "shared"}[shared]
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var lanes []*lane
	for _, style := range ruleStyles {
		if policies*peers > style.most {
			continue
		}
		n, err := newLane(l, w, style)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", style.name, err)
		}
		lanes = append(lanes, n)
	}
	// The lanes take turns, so that a slow moment of the machine spreads over all of them.
	for range packetTurns {
		for _, n := range lanes {
			if err := n.turn(); err != nil {
				return nil, fmt.Errorf("%d policies of %d peers, %s: %w", policies, peers, n.style.name, err)
			}
		}
	}
	for _, flow := range []string{"new", "established"} {
		for _, n := range lanes {
			costs := n.costNew
			if flow == "established" {
				costs = n.costOld
			}
			cpu := medianOf(costs, func(c cost) time.Duration { return c.cpu })
			rows = append(rows, packetRow{policies, peers, ports, flow, n.style.name,
				medianOf(costs, func(c cost) time.Duration { return c.wall }), cpu, int(time.Second / cpu)})
		}
	}
	return rows, nil
}

// medianOf returns the median of a component. The median ignores turns that another program interrupted.
func medianOf(costs []cost, of func(cost) time.Duration) time.Duration {
	var list []time.Duration
	for _, c := range costs {
		list = append(list, of(c))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// newLane loads the rules and prepares the frames before anything is measured.
func newLane(l *lab.Lab, w *world, style ruleStyle) (*lane, error) {
	k, err := newLink(l)
	if err != nil {
		return nil, err
	}
	if err := style.load(k, w); err != nil {
		return nil, err
	}
	n := &lane{link: k, style: style}
	// The last policy is the worst case of rules that are tried in order.
	peers, ports := w.allowed(w.Policies - 1)
	port := uint16(ports[0])
	if n.sender, err = newSender(k); err != nil {
		return nil, err
	}
	if n.sink, err = newSink(k, port); err != nil {
		return nil, err
	}
	// The sender changes with each frame, so that lookups are spread over all elements. The port changes once all
	// peers have sent, so that each frame is another flow.
	for i := range newFlows + oldFlows {
		from := netip.AddrPortFrom(peers[i*stride%len(peers)], uint16(1024+i/len(peers)))
		n.frames = append(n.frames, k.frame(from, port))
	}
	n.fresh, n.old = prepare(n.frames[:newFlows]), prepare(n.frames[newFlows:])
	return n, nil
}

// turn measures new flows, then established flows.
// Before each turn the server forgets all flows, so each packet of fresh is the first of its connection: it meets all
// rules. Packets of old belong to established connections.
func (n *lane) turn() error {
	// Entries of the previous turn would make its packets established.
	if err := n.forgetFlows(); err != nil {
		return err
	}
	c, err := n.count(n.fresh, 1)
	if err != nil {
		return err
	}
	n.costNew = append(n.costNew, c)
	// The first turn tells the cost of a packet; later turns have as many packets as fit into turnTime.
	n.fresh = n.fresh[:min(len(n.fresh), max(fewestFlows, int(turnTime/max(1, c.wall))))]
	// The old flows were forgotten too, so they must be established again.
	if err := n.establish(); err != nil {
		return err
	}
	// The same few flows are sent again and again, as many packets in total as new flows have at most.
	if c, err = n.count(n.old, newFlows/oldFlows); err != nil {
		return err
	}
	n.costOld = append(n.costOld, c)
	return nil
}

// count floods and checks that every packet reached the socket.
// A packet that the rules drop is cheaper than an allowed packet, so lost packets would make the figure too low. The
// server's socket counts the packets that its full buffer drops; these and the packets in the buffer must be all that
// were sent.
func (n *lane) count(list []mmsghdr, times int) (cost, error) {
	// The counter of the socket only grows, so the difference belongs to this flood.
	before, err := n.dropped()
	if err != nil {
		return cost{}, err
	}
	c, err := n.flood(list, times)
	if err != nil {
		return c, err
	}
	// The smallest buffer still holds some datagrams.
	queued, err := n.drain(false)
	if err != nil {
		return c, err
	}
	after, err := n.dropped()
	if came := after - before + queued; err == nil && came != len(list)*times {
		err = fmt.Errorf("%d of %d packets came through", came, len(list)*times)
	}
	return c, err
}

// establish sends a packet of each flow and answers it.
// The buffer is large for a moment, so that the server sees every packet and can answer it. Then it is as small as
// before.
func (n *lane) establish() error {
	if err := n.buffer(1 << 20); err != nil {
		return err
	}
	if _, err := n.flood(n.old, 1); err != nil {
		return err
	}
	answered, err := n.drain(true)
	if err == nil && answered != oldFlows {
		err = fmt.Errorf("%d of %d flows are established", answered, oldFlows)
	}
	return errors.Join(err, n.buffer(1))
}
