package enforcement

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
)

// Path is the path of the answer on the listener of the health checks.
const Path = "/enforcement"

// Parameters of a question. Without them the answer has all local pods and all policies.
const (
	ParameterNamespace = "namespace"
	ParameterPolicy    = "policy" // name of a policy in the namespace
)

// ContentType is the type of the answer: JSON values, one on each line. The first is a Header, the last an End, and all others
// are Pods.
const ContentType = "application/jsonl"

// Header is the first value of an answer.
type Header struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Started time.Time `json:"started"` // start of the agent; no Since is earlier
	// NotReady is the reason why the agent does not enforce yet; empty: it does. Rules of an earlier agent are in force meanwhile.
	NotReady string `json:"notReady,omitempty"`
}

// Pod is a local pod. The list of policies may be empty.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	Policies  []Policy  `json:"policies"`
}

// End is the last value of an answer. An answer without it is cut off.
type End struct {
	Pods int `json:"pods"` // number of pods in the answer
}

// Policy is the state of a policy in a pod that its podSelector selects.
type Policy struct {
	Name    string     `json:"name"`
	UID     types.UID  `json:"uid"`
	Version string     `json:"version"` // resource version that the agent has
	State   State      `json:"state"`
	Since   *time.Time `json:"since,omitempty"` // when the kernel acknowledged the rules as they are now; nil: not yet
	Reasons []Reason   `json:"reasons,omitempty"`
}

// State is the state of a policy in a pod.
type State string

// The states, in the order in which they are reported.
const (
	NotEnforced State = "NotEnforced"
	Unknown     State = "Unknown"  // the agent of the node gives no answer
	Enforced    State = "Enforced" // the kernel holds the rules of the policy in their present form
	NoEffect    State = "NoEffect" // nothing is to be enforced: no network of the policy, another implementation enforces it, or audit mode
)

// States are all states, in the order in which they are reported.
var States = []State{NotEnforced, Unknown, Enforced, NoEffect}

// Reason is a reason of a state.
type Reason struct {
	Reason    string `json:"reason"`              // a reason of cache.Gap, or one of the constants below
	Interface string `json:"interface,omitempty"` // empty: all interfaces of the pod
	Message   string `json:"message"`
}

// Reasons from the work on the tables, with the texts of the metric pods_not_enforced.
const (
	ReasonKernel = "kernel_error"
	ReasonGone   = "namespace_gone"
)

// stateOf returns the state that follows from the gaps of a policy.
func stateOf(gaps []cache.Gap) State {
	isNeutral := func(g cache.Gap) bool {
		return g.Reason == cache.GapNoNetwork || g.Reason == cache.GapElsewhere || g.Reason == cache.GapAuditMode
	}
	switch {
	case slices.ContainsFunc(gaps, func(g cache.Gap) bool { return !isNeutral(g) }):
		return NotEnforced
	case len(gaps) > 0:
		return NoEffect
	}
	return Enforced
}
