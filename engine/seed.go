//go:build linux

package engine

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/conntrack"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// The kernel tracks connections in a namespace from the first rule on that needs it. So the Engine makes a new table in
// three steps: the rules without base chains, which switch tracking on and judge nothing; the entries of the connections
// that exist (package conntrack); the base chains.
//
// A UDP socket without a peer does not show who its clients are. If the pod sends first on such a socket, the kernel takes the
// pod for the client. The set ServedSet has the ports of these sockets for a while: rules of a Ruleset must not take packets to
// them for replies. Meanwhile the Engine corrects the entries. The ports stay in the set for servedLife.
const (
	servedInterval = 10 * time.Second // between two corrections
	seedRetry      = time.Minute      // after a failure
)

// seeding is the state of connection tracking in the namespace, as far as the Engine knows.
type seeding struct {
	failure    error     // of the last attempt to make the entries; nil: it succeeded
	retry      time.Time // time of the next attempt after a failure
	served     []uint16  // ports of UDP sockets whose entries are corrected
	correction time.Time // time of the next correction; zero: none
	end        time.Time // time of the last correction
}

// SeedFailure returns the error of the last attempt to make the entries of connections, or nil.
func (e *Engine) SeedFailure() error { return e.seeding.failure }

// hasFailedToSeed reports whether the last attempt to make the entries failed. Another attempt follows after seedRetry.
func (e *Engine) hasFailedToSeed() bool { return e.seeding.failure != nil }

// isEnforcing reports whether the ruleset has base chains.
func (r Ruleset) isEnforcing() bool {
	for _, c := range r.Chains {
		if c.Hook != HookNone {
			return true
		}
	}
	return false
}

// tracking returns the ruleset without its base chains.
func (r Ruleset) tracking() Ruleset { return Ruleset{Sets: r.Sets, Chains: r.regular()} }

// seed makes the entries of connections, see conntrack.Seed. If it cannot make them, the policies are enforced
// nevertheless: they judge each connection by its next packet. The returned error is an error of the table, not of the
// entries.
func (e *Engine) seed(x *exchange, isFirst bool) error {
	r, err := conntrack.Seed(e.transport, isFirst)
	e.stats.Seeded += uint64(r.Made + r.Turned)
	e.seeding = seeding{failure: err}
	if err != nil {
		e.stats.SeedFailures++
		e.seeding.retry = time.Now().Add(seedRetry)
	}
	// Only some tables have the set: with --established=keep, no rule asks about replies.
	if len(r.Served) == 0 || e.have.ruleset.set(ServedSet) == nil {
		return nil
	}
	now := time.Now()
	e.seeding.served, e.seeding.correction, e.seeding.end = r.Served, now.Add(servedInterval), now.Add(servedLife)
	return e.addServed(x, r.Served)
}

// addServed adds ports to the set of served ports. The kernel deletes them after servedLife. If another process changes
// a table meanwhile, the error is ERESTART, as in send.
func (e *Engine) addServed(x *exchange, ports []uint16) error {
	generation := e.have.generation
	if e.have.isOwn() {
		generation = nfnl.AnyGeneration
	}
	x.batch.reset()
	x.batch.BeginBatch(generation)
	l := x.batch.list(unix.NFT_MSG_NEWSETELEM, "NEWSETELEM", ServedSet)
	for _, port := range ports {
		l.next()
		l.element(binary.BigEndian.AppendUint16(nil, port), 0)
	}
	l.close()
	x.batch.EndBatch()
	if err := x.roundTrip(e.transport, nil); err != nil {
		e.stats.Refused++
		return err
	}
	// The batch raised the generation, for this table and for its sibling.
	e.sibling.follow(e.have.generation)
	if e.have.generation != nfnl.AnyGeneration {
		e.have.generation++
	}
	return nil
}

// isDue reports whether connection tracking needs work: entries are missing, or a correction is due. Only if neither is
// due by the clock, it asks the kernel for the mark.
func (e *Engine) isDue() (bool, error) {
	if e.family != Inet || !e.have.ruleset.isEnforcing() {
		return false, nil
	}
	if e.hasFailedToSeed() {
		return !time.Now().Before(e.seeding.retry), nil
	}
	if !e.seeding.correction.IsZero() && !time.Now().Before(e.seeding.correction) {
		return true, nil
	}
	isSeeded, err := conntrack.IsSeeded(e.transport)
	return !isSeeded, err
}

// reseed makes the entries of connections again if another process has deleted them, and makes a correction that is
// due. It reports whether it has made entries.
func (e *Engine) reseed(x *exchange) (reseeded bool, err error) {
	due, err := e.isDue()
	if err != nil || !due {
		return false, err
	}
	if e.hasFailedToSeed() {
		return false, e.seed(x, false)
	}
	if restored, err := e.restore(x); err != nil || restored {
		return restored, err
	}
	now := time.Now()
	turned, err := conntrack.TurnServed(e.transport, e.seeding.served)
	e.stats.Seeded += uint64(turned)
	e.seeding.correction = now.Add(servedInterval)
	if now.After(e.seeding.end) {
		e.seeding.served, e.seeding.correction = nil, time.Time{}
	}
	return false, err
}

// restore makes the entries of connections if the mark of conntrack.Seed is missing while policies are in force:
// another process has deleted all entries.
func (e *Engine) restore(x *exchange) (restored bool, err error) {
	if e.family != Inet || !e.have.ruleset.isEnforcing() {
		return false, nil
	}
	isSeeded, err := conntrack.IsSeeded(e.transport)
	if err == nil && isSeeded {
		return false, nil
	}
	return true, errors.Join(err, e.seed(x, false))
}

// resumeCorrections continues the corrections that an earlier agent began: the set of served ports tells the ports.
func (e *Engine) resumeCorrections(x *exchange) error {
	if !e.seeding.correction.IsZero() || e.have.ruleset.set(ServedSet) == nil {
		return nil
	}
	// The read-back leaves the content of this set out.
	ports, err := x.readServed(e.transport)
	if err == nil && len(ports) > 0 {
		// The first correction is due at once.
		now := time.Now()
		e.seeding.served, e.seeding.correction, e.seeding.end = ports, now, now.Add(servedLife)
	}
	return err
}

// readServed reads the ports in the set of served ports, in their order. It repeats a dump with repeated elements, as readElements.
func (x *exchange) readServed(t *nfnl.Conn) ([]uint16, error) {
	for try := 1; ; try++ {
		var list []uint16
		x.askElements(ServedSet)
		err := x.ask(t, unix.NFT_MSG_NEWSETELEM, func(a nfnl.Attrs) error {
			return nfnl.EachAttr(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, element []byte) {
				attributes, err := nfnl.ParseAttrs(element)
				if key, bad := dataValue(attributes[unix.NFTA_SET_ELEM_KEY]); err == nil && bad == nil && len(key) == 2 {
					list = append(list, binary.BigEndian.Uint16(key))
				}
			})
		})
		if err != nil {
			return nil, err
		}
		slices.Sort(list)
		ports := slices.Compact(list)
		if len(ports) == len(list) || try == dumpTries {
			return ports, nil
		}
	}
}
