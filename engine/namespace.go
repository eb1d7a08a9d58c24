//go:build linux

package engine

import (
	"context"
	"errors"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// Namespace owns the tables of both families in a network namespace. Its Engines share a socket, since an owner of a
// table is a socket, and a batch of either Engine raises the generation for both. Its methods must not run at the same
// time.
type Namespace struct {
	// Both elements are set from OpenNamespace on.
	engines [len(expr.TableFamilies)]*Engine // by family
}

// OpenNamespace opens the network namespace at the path, see Open. The family of the options has no meaning.
func OpenNamespace(pod, path string, o Options) (*Namespace, error) {
	t, err := nfnl.Open(path)
	if err != nil {
		return nil, &ApplyError{Pod: pod, Op: "open", Err: err}
	}
	n := &Namespace{}
	for _, f := range expr.TableFamilies {
		o.Family = f
		n.engines[f] = newEngine(pod, t, o)
	}
	n.engines[Inet].sibling, n.engines[Bridge].sibling = n.engines[Bridge], n.engines[Inet]
	return n, nil
}

// Apply makes both tables equal to want, see Engine.Apply. No packet is judged by both tables, so their order has no effect on
// packets. If one fails, the other is applied all the same.
// Both families are always tried, so an error in the table for bridges leaves the other policies in force.
func (n *Namespace) Apply(ctx context.Context, want Tables) error {
	var errs []error
	for f, e := range n.engines {
		errs = append(errs, e.Apply(ctx, want[f]))
	}
	return errors.Join(errs...)
}

// Changed reports whether somebody may have changed a table, so that Check has work to do. It asks the kernel one question.
func (n *Namespace) Changed(ctx context.Context) (bool, error) { return n.engines[Inet].Changed(ctx) }

// IsExposed reports whether Changed should be asked often: another process can change a table, or connection tracking has work to do soon.
// If all tables are owned, Changed only notices that another process has deleted entries of connections, or made a table of the same
// name where none is wanted.
func (n *Namespace) IsExposed() bool {
	return n.engines[Inet].isExposed() || n.engines[Bridge].isExposed()
}

// Check checks both tables, see Engine.Check. If it finds something in both, it reports a repair, or the finding in family inet.
func (n *Namespace) Check(ctx context.Context) (found Finding, err error) {
	for _, e := range n.engines {
		next, err := e.Check(ctx)
		if err != nil {
			return AsApplied, err
		}
		if found == AsApplied || next == Repaired {
			found = next
		}
	}
	return found, nil
}

// HasBridgePort reports whether any of the names is the name of a bridge's port in the namespace. It asks over a route
// socket that it opens for the question.
func (n *Namespace) HasBridgePort(names ...string) (is bool, err error) {
	e := n.engines[Bridge]
	netns, err := e.transport.Namespace()
	if err != nil {
		return false, &ApplyError{Pod: e.pod, Op: "links", Err: err}
	}
	defer netns.Close()
	links, err := nfnl.DialRoute(netns)
	if err == nil {
		is, err = links.IsBridgePort(names...)
		err = errors.Join(err, links.Close())
	}
	if err != nil {
		return is, &ApplyError{Pod: e.pod, Op: "links", Err: err}
	}
	return is, nil
}

// SeedFailure returns the error of the last attempt to make the entries of connections, or nil.
func (n *Namespace) SeedFailure() error { return n.engines[Inet].SeedFailure() }

// Stats returns the counts of both tables up to now.
func (n *Namespace) Stats() (sum Stats) {
	for _, e := range n.engines {
		sum.add(e.stats)
	}
	return sum
}

// add adds the counts of another table.
func (s *Stats) add(o Stats) {
	s.Batches += o.Batches
	s.Messages += o.Messages
	s.Bytes += o.Bytes
	s.Refused += o.Refused
	s.ReadBacks += o.ReadBacks
	s.Restarts += o.Restarts
	s.Repairs += o.Repairs
	s.Seeded += o.Seeded
	s.SeedFailures += o.SeedFailures
}

// Counts reads the counters of all rules of both tables, see Engine.Counts.
// Family inet comes first. After an error, no counts are returned.
func (n *Namespace) Counts() ([]RuleCount, error) { return n.collect((*Engine).Counts) }

// DropCounts reads the counters of the chains of interfaces in both tables, see Engine.DropCounts.
func (n *Namespace) DropCounts() ([]RuleCount, error) { return n.collect((*Engine).DropCounts) }

// collect joins the counts of both tables.
func (n *Namespace) collect(read func(*Engine) ([]RuleCount, error)) ([]RuleCount, error) {
	var all []RuleCount
	for _, e := range n.engines {
		counts, err := read(e)
		if err != nil {
			return nil, err
		}
		all = append(all, counts...)
	}
	return all, nil
}

// Close closes the socket of both Engines. The tables stay.
func (n *Namespace) Close() error { return n.engines[Inet].Close() }
