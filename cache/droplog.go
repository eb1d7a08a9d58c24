package cache

import (
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
)

// DropLogAnnotation on a pod or a namespace, with the value true or false, says whether the tables of the pod, or of all pods of
// the namespace, report the packets that they drop. The pod's annotation counts more.
const DropLogAnnotation = "multi-networkpolicy/drop-log"

// DropLog says which tables report the packets that they drop. A table with policies in audit mode always reports the packets
// that these would drop, unless DropLog is DropLogNone.
type DropLog string

// The values of DropLog. The zero value is DropLogNone.
const (
	DropLogNone      DropLog = "none"
	DropLogAnnotated DropLog = "annotated" // of pods that DropLogAnnotation selects
	DropLogAll       DropLog = "all"
)

// DropGroup is the NFLOG group that tables report packets to. NFLOG groups belong to a network namespace, so it cannot collide
// with a group of the host.
const DropGroup = 10349

// dropRate is the rate at which a chain of an interface reports packets, in packets a second. The kernel applies it, so a flood costs
// the agent no more.
var dropRate = expr.Limit{Rate: 5, Burst: 10, Unit: 1}

// Words in front of a chain's name in the prefix of a report.
const (
	dropWord  = "drop "
	auditWord = "audit "
)

// Choice is a value of DropLogAnnotation.
type Choice uint8

// The choices. The zero value is an absent annotation.
const (
	choiceUnset Choice = iota
	choiceYes
	choiceNo
	choiceBad // any other value, which counts as absent
)

// choiceOf reads a value of DropLogAnnotation; not ok: the annotation is absent.
func choiceOf(value string, ok bool) Choice {
	switch {
	case !ok:
		return choiceUnset
	case value == "true":
		return choiceYes
	case value == "false":
		return choiceNo
	}
	return choiceBad
}

// problems returns the Problem of a bad choice, or nothing.
func (c Choice) problems() []policy.Problem {
	if c != choiceBad {
		return nil
	}
	return []policy.Problem{{Field: annotationField(DropLogAnnotation), Message: "is neither true nor false, so it has no effect"}}
}

// logsDrops reports whether the tables of a local pod report the packets that they drop. The caller holds the lock.
func (c *Cache) logsDrops(t *target) bool {
	switch choice := t.pod.local.dropLog; {
	case c.options.DropLog != DropLogAnnotated:
		return c.options.DropLog == DropLogAll
	case choice == choiceYes || choice == choiceNo:
		return choice == choiceYes
	}
	return t.pod.namespace.dropLog == choiceYes
}

// LogsAudits reports whether tables report the packets that policies in audit mode would drop.
func (o *Options) LogsAudits() bool { return o.DropLog == DropLogAnnotated || o.DropLog == DropLogAll }

// last returns the last rules of an interface's chain: they report and count the packets that no rule before has accepted, and
// drop them, unless all policies of the interface are in audit mode.
func (i isolation) last(d engine.Direction) (rules []engine.Rule) {
	word, verdict := dropWord, expr.Drop()
	if i.audited {
		word, verdict = auditWord, expr.Accept()
	}
	if i.logged {
		prefix := word + engine.InterfaceChain(d, i.iface)
		rules = append(rules, engine.Rule{Statements: []expr.Statement{dropRate.Statement(), expr.LogTo(DropGroup, prefix)}})
	}
	return append(rules, engine.Rule{Statements: []expr.Statement{expr.Counter(), verdict}})
}

// Reports reports whether rules of the tables report packets.
func Reports(tables *engine.Tables) bool {
	for _, rs := range tables {
		for _, c := range rs.Chains {
			// Only the chains of interfaces report, in the rule before the last.
			if n := len(c.Rules); c.Hook == engine.HookNone && n > 1 && expr.IsLoggedTo(c.Rules[n-2].Statements, DropGroup) {
				return true
			}
		}
	}
	return false
}

// MaxReported is the maximum number of policies in a Report. A namespace may have thousands, and a Report is made for each packet.
const MaxReported = 5

// Report is the meaning of the prefix of a reported packet: the interface in whose chain the packet was, and its policies.
type Report struct {
	Interface string
	Direction engine.Direction
	Audited   bool // the packet has passed: the policies are in audit mode
	// Policies are the first MaxReported policies that isolate the interface, sorted. More is the number of the others.
	Policies []Key
	More     int
}
