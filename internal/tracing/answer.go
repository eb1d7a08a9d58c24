//go:build linux

package tracing

import (
	"fmt"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/trace"
)

// Answer is the explanation of a traced packet in terms of policies. Its JSON form is the output of trace --output
// json, and must stay compatible.
type Answer struct {
	Time time.Time `json:"time"`
	// Pod is the name of the pod, or the path of its network namespace if the name is unknown.
	Pod       string `json:"pod"`
	Direction string `json:"direction"`
	// Interface is the interface of the pod, also for a frame that passes a bridge in the pod.
	Interface string          `json:"interface"`
	Packet    Packet          `json:"packet"`
	Verdict   explain.Verdict `json:"verdict"`
	DecidedBy string          `json:"decidedBy,omitempty"` // policy and rule, or chain
	Reason    string          `json:"reason"`
	Steps     []Step          `json:"steps"`
}

// Step is a rule that the packet matched, or the policy of a base chain.
type Step struct {
	Table   string   `json:"table,omitempty"` // empty: the agent's table
	Chain   string   `json:"chain"`
	Handle  uint64   `json:"handle,omitempty"` // handle of the rule; 0: the policy of the chain
	Comment string   `json:"comment,omitempty"`
	Rule    string   `json:"rule,omitempty"`
	Sets    []string `json:"sets,omitempty"`
	Verdict string   `json:"verdict"`
	Target  string   `json:"target,omitempty"`
	NoMatch bool     `json:"noMatch,omitempty"` // no rule of the target matched
}

// newAnswer explains a packet.
func newAnswer(pod string, p trace.Packet) Answer {
	a := Answer{
		Time: p.Time, Pod: pod, Direction: engine.Ingress.String(), Interface: p.In, Packet: NewPacket(p.Headers),
		Verdict: explain.Allowed, Steps: []Step{},
	}
	// A packet without an incoming interface was sent by the pod.
	if p.In == "" {
		a.Direction, a.Interface = engine.Egress.String(), p.Out
	}
	// A jump into a chain without a match shows as a jump whose next step is in another chain.
	for i, s := range p.Steps {
		if name, ok := engine.ParseChain(s.Target); ok && s.IsInBridge() && name.Kind == engine.KindInterface {
			a.Direction, a.Interface = name.Direction.String(), name.ID // the links of a frame are ports of the bridge
		}
		step := Step{
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

// decide sets the verdict and its reason. A drop decides, in any table. Without a drop, the last accept in the agent's table
// decides.
func (a *Answer) decide(steps []trace.Step) {
	// The reason holds if no step decides.
	a.Reason = "the agent's table does not look at it: no policy isolates the interface in this direction"
	for _, s := range steps {
		switch {
		// A drop ends the path of the packet in the kernel.
		case s.Verdict == "drop":
			a.Verdict = explain.Denied
			a.DecidedBy, a.Reason = whyDropped(s)
			return
		// The verdict accept ends only the current base chain, so a later step may still drop.
		case s.IsOfAgent() && s.Verdict == "accept":
			a.DecidedBy, a.Reason = whyAccepted(s)
		// What the other program decides is not visible in the trace.
		case s.Verdict == "queue", s.Verdict == "stolen":
			a.DecidedBy, a.Reason = chainText(s), "it was given to another program, which may drop it"
		}
	}
}

// chainText names the chain of a step for users.
func chainText(s trace.Step) string {
	if s.IsOfAgent() {
		return "chain " + s.Chain
	}
	return fmt.Sprintf("table %s %s, chain %s", s.Family, s.Table, s.Chain)
}

// whyDropped returns the decider of a drop and the reason.
func whyDropped(s trace.Step) (decidedBy, reason string) {
	switch {
	case !s.IsOfAgent():
		return chainText(s), "it is not of the agent's"
	case kindOf(s) == engine.KindCustom:
		return customRule(s), "custom rules come before the policies"
	}
	return chainText(s), "no policy and no common rule allows it"
}

// whyAccepted returns the decider of an accept in the agent's table and the reason.
func whyAccepted(s trace.Step) (decidedBy, reason string) {
	switch name, _ := engine.ParseChain(s.Chain); name.Kind {
	case engine.KindPolicy:
		if name.Replies {
			return s.Comment, "the policy's rule allows what it answers"
		}
		return s.Comment, "the policy's rule allows it"
	case engine.KindCommon:
		return chainText(s), "it passes on every isolated interface"
	case engine.KindCustom:
		return customRule(s), "custom rules come before the policies"
	case engine.KindSelf:
		return chainText(s), "the pod sent it to itself"
	case engine.KindInterface:
		return "connection tracking", "it belongs to a connection that was allowed"
	}
	return chainText(s), "no policy isolates the interface in this direction"
}

// kindOf returns the kind of the chain of a step in the agent's table.
func kindOf(s trace.Step) engine.ChainKind {
	name, _ := engine.ParseChain(s.Chain)
	return name.Kind
}

// customRule names a custom rule by its comment, or only by its chain.
func customRule(s trace.Step) string {
	if s.Comment == "" {
		return chainText(s)
	}
	return fmt.Sprintf("%s, rule %q", chainText(s), s.Comment)
}
