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
	CPU      time.Duration `json:"cpu_ns"`
	Rate     int           `json:"packets_per_second"` // of a single core
}

const (
	newFlows    = 1 << 14 // largest number of packets in a turn, each of another flow
	fewestFlows = 1 << 8  // smallest number, if a turn would take longer than turnTime
	turnTime    = 30 * time.Millisecond
	oldFlows    = 64   // established flows
	stride      = 7919 // distance between consecutive senders: a prime, so that all peers send
	packetTurns = 11
)

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
			for _, shared := range []bool{false, true} {
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
type lane struct {
	*link
	style ruleStyle
	*sender
	*sink
	fresh, old       []mmsghdr
	frames           [][]byte // the lists refer to these frames
	costNew, costOld []cost
}

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

func medianOf(costs []cost, of func(cost) time.Duration) time.Duration {
	var list []time.Duration
	for _, c := range costs {
		list = append(list, of(c))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func newLane(l *lab.Lab, w *world, style ruleStyle) (*lane, error) {
	k, err := newLink(l)
	if err != nil {
		return nil, err
	}
	if err := style.load(k, w); err != nil {
		return nil, err
	}
	n := &lane{link: k, style: style}
	peers, ports := w.allowed(w.Policies - 1)
	port := uint16(ports[0])
	if n.sender, err = newSender(k); err != nil {
		return nil, err
	}
	if n.sink, err = newSink(k, port); err != nil {
		return nil, err
	}
	for i := range newFlows + oldFlows {
		from := netip.AddrPortFrom(peers[i*stride%len(peers)], uint16(1024+i/len(peers)))
		n.frames = append(n.frames, k.frame(from, port))
	}
	n.fresh, n.old = prepare(n.frames[:newFlows]), prepare(n.frames[newFlows:])
	return n, nil
}

// turn measures new flows, then established flows.
func (n *lane) turn() error {
	if err := n.forgetFlows(); err != nil {
		return err
	}
	c, err := n.count(n.fresh, 1)
	if err != nil {
		return err
	}
	n.costNew = append(n.costNew, c)
	n.fresh = n.fresh[:min(len(n.fresh), max(fewestFlows, int(turnTime/max(1, c.wall))))]
	if err := n.establish(); err != nil {
		return err
	}
	if c, err = n.count(n.old, newFlows/oldFlows); err != nil {
		return err
	}
	n.costOld = append(n.costOld, c)
	return nil
}

// count floods and checks that every packet reached the socket.
func (n *lane) count(list []mmsghdr, times int) (cost, error) {
	before, err := n.dropped()
	if err != nil {
		return cost{}, err
	}
	c, err := n.flood(list, times)
	if err != nil {
		return c, err
	}
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
