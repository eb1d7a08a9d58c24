package command

import (
	"fmt"
	"strings"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// traceAnswer is one packet in terms of policies.
type traceAnswer struct {
	Time      time.Time     `json:"time"`
	Pod       string        `json:"pod"`
	Direction string        `json:"direction"`
	Interface string        `json:"interface"`
	Packet    tracePacket   `json:"packet"`
	Verdict   cache.Verdict `json:"verdict"`
	DecidedBy string        `json:"decidedBy,omitempty"` // policy and rule, or chain
	Reason    string        `json:"reason"`
	Steps     []traceStep   `json:"steps"`
}

type tracePacket struct {
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	Destination     string `json:"destination"`
	SourcePort      uint16 `json:"sourcePort,omitempty"`
	DestinationPort uint16 `json:"destinationPort,omitempty"`
	ICMPType        *uint8 `json:"icmpType,omitempty"`
}

type traceStep struct {
	Table   string   `json:"table,omitempty"` // if it is not the agent's
	Chain   string   `json:"chain"`
	Handle  uint64   `json:"handle,omitempty"` // none: the chain's policy
	Comment string   `json:"comment,omitempty"`
	Rule    string   `json:"rule,omitempty"`
	Sets    []string `json:"sets,omitempty"`
	Verdict string   `json:"verdict"`
	Target  string   `json:"target,omitempty"`
	NoMatch bool     `json:"noMatch,omitempty"` // no rule of the target matched
}

func newTraceAnswer(pod string, p engine.TracedPacket) traceAnswer {
	a := traceAnswer{
		Time: p.Time, Pod: pod, Direction: cache.Ingress.String(), Interface: p.In, Packet: newTracePacket(p.Packet),
		Verdict: cache.Allowed, Steps: []traceStep{},
	}
	if p.In == "" {
		a.Direction, a.Interface = cache.Egress.String(), p.Out
	}
	for i, s := range p.Steps {
		step := traceStep{
			Chain: s.Chain, Handle: s.Handle, Comment: s.Comment, Rule: s.Rule, Sets: s.Sets, Verdict: s.Verdict,
			Target: s.Target, NoMatch: s.Verdict == "jump" && (i+1 == len(p.Steps) || p.Steps[i+1].Chain != s.Target),
		}
		if !s.IsOfAgent() {
			step.Table = s.Family + " " + s.Table
		}
		a.Steps = append(a.Steps, step)
	}
	a.decide(p.Steps)
	return a
}

func newTracePacket(p engine.Packet) tracePacket {
	if !p.Source.IsValid() {
		return tracePacket{Protocol: "unknown", Source: "unknown", Destination: "unknown"}
	}
	t := tracePacket{
		Protocol: protocolText(p.Protocol), Source: p.Source.String(), Destination: p.Destination.String(),
		SourcePort: p.SourcePort, DestinationPort: p.DestinationPort,
	}
	if p.HasType {
		t.ICMPType = &p.Type
	}
	return t
}

func protocolText(n uint8) string {
	for _, name := range []string{"tcp", "udp", "sctp", "icmp", "icmpv6"} {
		if number, err := parseProtocol(name); err == nil && number == n {
			return name
		}
	}
	return fmt.Sprintf("protocol %d", n)
}

// decide takes the drop for what decided, wherever it is, else the agent's last accept.
func (a *traceAnswer) decide(steps []engine.TraceStep) {
	a.Reason = "the agent's table does not look at it: no policy isolates the interface in this direction"
	for _, s := range steps {
		switch {
		case s.Verdict == "drop":
			a.Verdict = cache.Denied
			a.DecidedBy, a.Reason = whyDropped(s)
			return
		case s.IsOfAgent() && s.Verdict == "accept":
			a.DecidedBy, a.Reason = whyAccepted(s)
		case s.Verdict == "queue", s.Verdict == "stolen":
			a.DecidedBy, a.Reason = chainText(s), "it was given to another program, which may drop it"
		}
	}
}

func chainText(s engine.TraceStep) string {
	if s.IsOfAgent() {
		return "chain " + s.Chain
	}
	return fmt.Sprintf("table %s %s, chain %s", s.Family, s.Table, s.Chain)
}

func whyDropped(s engine.TraceStep) (decidedBy, reason string) {
	switch {
	case !s.IsOfAgent():
		return chainText(s), "it is not of the agent's"
	case kindOfChain(s.Chain) == customChain:
		return customRule(s), "custom rules come before the policies"
	}
	return chainText(s), "no policy and no common rule allows it"
}

func whyAccepted(s engine.TraceStep) (decidedBy, reason string) {
	switch kindOfChain(s.Chain) {
	case policyChain:
		if strings.HasPrefix(s.Chain, repliesPrefix) {
			return s.Comment, "the policy's rule allows what it answers"
		}
		return s.Comment, "the policy's rule allows it"
	case commonChain:
		return chainText(s), "it passes on every isolated interface"
	case customChain:
		return customRule(s), "custom rules come before the policies"
	case interfaceChain:
		return "connection tracking", "it belongs to a connection that was allowed"
	}
	return chainText(s), "no policy isolates the interface in this direction"
}

func customRule(s engine.TraceStep) string {
	if s.Comment == "" {
		return chainText(s)
	}
	return fmt.Sprintf("%s, rule %q", chainText(s), s.Comment)
}

// chainKind is what a chain of the agent's table is for, as docs/nftables.md has it.
type chainKind int

const (
	baseChain chainKind = iota
	interfaceChain
	policyChain
	commonChain
	customChain
)

// repliesPrefix begins the names of the chains for packets that answer.
const repliesPrefix = "replies-"

func kindOfChain(name string) chainKind {
	name = strings.TrimPrefix(name, repliesPrefix)
	for _, k := range []struct {
		prefix string
		kind   chainKind
	}{
		{"ingress-policy-", policyChain},
		{"egress-policy-", policyChain},
		{"ingress-", interfaceChain},
		{"egress-", interfaceChain},
		{"common-", commonChain},
		{"custom-", customChain},
	} {
		if strings.HasPrefix(name, k.prefix) {
			return k.kind
		}
	}
	return baseChain
}
