package query

import (
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
)

// Reasons that an agent cannot give.
const (
	ReasonNoAgent     = "no_agent"          // no pod of the agent runs on the node
	ReasonUnreachable = "agent_unreachable" // the agent gives no answer
	ReasonNotReady    = "agent_not_ready"   // the agent does not know all objects yet
	ReasonUnknownPod  = "unknown_pod"       // the agent does not know the pod
	ReasonOutdated    = "outdated"          // the agent has an earlier version of the policy or of the pod
	ReasonUnscheduled = "not_scheduled"     // the pod is on no node yet
	ReasonNoPods      = "no_pods"           // the policy selects no pod
)

// Report says where policies are enforced.
type Report struct {
	Summary Summary `json:"summary"`
	Rows    []Row   `json:"enforcement"` // by state, then by policy and pod
	Nodes   []Node  `json:"nodes"`       // nodes of selected pods, sorted
}

// Summary counts the rows of a Report by state.
type Summary struct {
	Policies    int `json:"policies"`
	Pods        int `json:"pods"` // pods that a policy selects
	Nodes       int `json:"nodes"`
	NotEnforced int `json:"notEnforced"`
	Unknown     int `json:"unknown"`
	Enforced    int `json:"enforced"`
	NoEffect    int `json:"noEffect"`
}

// Row is a policy in a pod.
type Row struct {
	State     enforcement.State    `json:"state"`
	Namespace string               `json:"namespace"`
	Policy    string               `json:"policy"`
	Pod       string               `json:"pod,omitempty"`  // empty: the policy selects no pod
	Node      string               `json:"node,omitempty"` // empty: the pod is not scheduled
	Since     *time.Time           `json:"since,omitempty"`
	Reasons   []enforcement.Reason `json:"reasons,omitempty"`
}

// Node is a node with selected pods, and its agent.
type Node struct {
	Name    string     `json:"name"`
	Agent   string     `json:"agent,omitempty"`
	Version string     `json:"version,omitempty"`
	Started *time.Time `json:"started,omitempty"`
	Error   string     `json:"error,omitempty"` // why the agent gives no answer
}

// IsEnforced reports whether all policies are enforced in all pods where they have an effect.
func (r *Report) IsEnforced() bool { return r.Summary.NotEnforced+r.Summary.Unknown == 0 }

// newRow returns a row without a state.
func newRow(policy cache.Key, pod, node string) Row {
	return Row{Namespace: policy.Namespace, Policy: policy.Name, Pod: pod, Node: node}
}

// because returns the row with a state and the reason.
func (r Row) because(s enforcement.State, reason, message string) Row {
	r.State, r.Reasons = s, append([]enforcement.Reason{{Reason: reason, Message: message}}, r.Reasons...)
	return r
}
