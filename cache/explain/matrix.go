package explain

import (
	"net/netip"
	"slices"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Cell is the part of a matrix for a sender, a receiver and a network. Its JSON form is the output of explain matrix
// --output json.
type Cell struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Network string `json:"network"`
	// Ports are the protocols and ports that both ends allow, from any address of the sender to any address of the receiver.
	Ports Selection `json:"ports"`
	// Unenforced says that the policies of an end cannot be enforced, so that other ports may pass too.
	Unenforced bool `json:"unenforced,omitempty"`

	open sets.Ports
}

// Allows reports whether the cell allows a port.
func (c *Cell) Allows(protocol uint8, port uint16) bool { return c.open.Contains(protocol, port) }

// Matrix returns who reaches whom among the pods: a cell for each sender, each receiver and each network that both are on,
// in the order of the pods. It leaves out neighbor discovery and custom rules, and pods without known interfaces. Its cost
// does not depend on the number of ports.
func Matrix(c *cache.Cache, pods []cache.Key, network cache.Key) []Cell {
	var known []matrixPod
	for _, key := range pods {
		if view, err := viewOf(c, key); err == nil {
			known = append(known, matrixPod{key, view, accessOf(c, key)})
		}
	}
	cells := []Cell{}
	for i := range known {
		for j := range known {
			if i != j {
				cells = append(cells, cellsOf(&known[i], &known[j], network)...)
			}
		}
	}
	return cells
}

// matrixPod is a pod of a matrix, with the connections that its interfaces let pass.
type matrixPod struct {
	key    cache.Key
	view   *cache.PodView
	access map[place]access
}

// cellsOf returns the cells for a sender and a receiver, in the order of the sender's networks.
func cellsOf(from, to *matrixPod, network cache.Key) []Cell {
	var cells []Cell
	for _, s := range sharedPaths(from.view, to.view, network) {
		name := s.network.String()
		at := slices.IndexFunc(cells, func(c Cell) bool { return c.Network == name })
		if at < 0 {
			at = len(cells)
			cells = append(cells, Cell{From: from.key.String(), To: to.key.String(), Network: name})
		}
		cell := &cells[at]
		out, in := from.access[place{s.fromInterface, engine.Egress}], to.access[place{s.toInterface, engine.Ingress}]
		cell.Unenforced = cell.Unenforced || out.state == Unenforced || in.state == Unenforced
		cell.open = cell.open.Union(intersection(out.portsFor(s.to), in.portsFor(s.from)))
		cell.Ports = selectPorts(cell.open)
	}
	return cells
}

// portsFor returns the protocols and ports that an interface lets pass from or to an address.
func (a access) portsFor(remote netip.Addr) sets.Ports {
	var ports sets.Ports
	for _, t := range a.terms {
		if t.addrs.Contains(remote) {
			ports = ports.Union(t.ports)
		}
	}
	return ports
}

// intersection returns the ports in both sets.
func intersection(a, b sets.Ports) sets.Ports { return a.Difference(a.Difference(b)) }
