package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// passes says whether a ruleset lets a packet pass, as the kernel would.
func passes(t *testing.T, rs Ruleset, p expr.Packet) bool {
	t.Helper()
	for _, c := range rs.Chains {
		isHere := c.Hook == HookPrerouting && p.Input != "" || c.Hook == HookOutput && p.Output != ""
		if isHere && verdictOf(t, rs, c, p) == "drop" {
			return false
		}
	}
	return true
}

// verdictOf is what a chain decides: "accept", "drop", or empty if its end is reached. A goto is the end of its chain.
func verdictOf(t *testing.T, rs Ruleset, c *Chain, p expr.Packet) string {
	t.Helper()
	for i := range c.Rules {
		r := &c.Rules[i]
		if !matches(t, rs, r, p) {
			continue
		}
		switch s := r.summary(); s.Verdict {
		case "accept", "drop":
			return s.Verdict
		case "jump", "goto":
			verdict := verdictOf(t, rs, rs.chain(s.Chain), p)
			if verdict != "" || s.Verdict == "goto" {
				return verdict
			}
		}
	}
	return ""
}

// matches evaluates all statements of a rule but the verdict.
func matches(t *testing.T, rs Ruleset, r *Rule, p expr.Packet) bool {
	t.Helper()
	var statements []expr.Statement
	for _, s := range r.Statements {
		if expr.Summarize([]expr.Statement{s}).Verdict == "" {
			statements = append(statements, s)
		}
	}
	out, err := expr.Evaluate(append(statements, expr.Accept()), p, rs.lookup)
	if err != nil {
		t.Fatal(err)
	}
	return out.Verdict == "accept"
}

// lookup is an expr.Lookup.
func (r Ruleset) lookup(name string) (size int, has func(key []byte) bool) {
	s := r.set(name)
	if s == nil {
		return 0, nil
	}
	addr := func(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }
	switch e := s.Elements.(type) {
	case Addrs:
		return int(layoutOf(e).keyLen), func(key []byte) bool { return e.Addrs.Contains(addr(key)) }
	case Hosts:
		return int(layoutOf(e).keyLen), func(key []byte) bool { return e.Addrs.Contains(addr(key)) }
	case Ports:
		return 8, func(key []byte) bool { return e.Ports.Contains(key[4], binary.BigEndian.Uint16(key)) }
	case Endpoints:
		n := int(layoutOf(e).keyLen)
		return n, func(key []byte) bool {
			return e.Endpoints.Contains(sets.Endpoint{Addr: addr(key[:n-8]), Proto: key[n-8], Port: binary.BigEndian.Uint16(key[n-4:])})
		}
	}
	return 0, nil
}
