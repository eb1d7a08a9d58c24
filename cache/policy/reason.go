package policy

// Reason is the reason of a Warning Event: a word for programs, in CamelCase.
type Reason string

// Reasons of Events. The page docs/reference-events.md has their comments: the object of the Event, the meaning, and the message with
// the variable parts in capitals.
const (
	// InvalidMultiNetworkPolicy is about a MultiNetworkPolicy: a field is invalid or exceeds a limit. The field allows nothing, and
	// the rest of the policy stays in force.
	//
	// Message: FIELD: PROBLEM
	InvalidMultiNetworkPolicy Reason = "InvalidMultiNetworkPolicy"

	// InvalidNetworkAttachmentDefinition is about a NetworkAttachmentDefinition: its plugin type cannot be read. Policies isolate the
	// network.
	//
	// Message: FIELD: PROBLEM
	InvalidNetworkAttachmentDefinition Reason = "InvalidNetworkAttachmentDefinition"

	// InvalidNetworkStatus is about a Pod: an annotation of Multus cannot be read, or the labels or annotations exceed a limit. The
	// known interfaces of the pod stay isolated.
	//
	// Message: FIELD: PROBLEM
	InvalidNetworkStatus Reason = "InvalidNetworkStatus"

	// InvalidNamespace is about a Namespace: the object cannot be decoded, and the labels that were read last stay in force; or an
	// annotation has a wrong value, which has no effect.
	//
	// Message: FIELD: PROBLEM
	InvalidNamespace Reason = "InvalidNamespace"

	// UnresolvedNamedPort is about a MultiNetworkPolicy: no pod has a port with the name, so the name allows nothing yet.
	//
	// Message: FIELD: PODS has a port PORT of PROTOCOL, so the name allows nothing
	UnresolvedNamedPort Reason = "UnresolvedNamedPort"

	// UnsupportedNetworkPlugin is about a MultiNetworkPolicy: the plugin type of the network is not in --network-plugins, so its
	// interfaces are open.
	//
	// Message: FIELD: network NETWORK has the plugin type TYPE, which is none of --network-plugins, so its interfaces are not isolated
	UnsupportedNetworkPlugin Reason = "UnsupportedNetworkPlugin"

	// NotEnforceable is about a MultiNetworkPolicy: the kernel does not show all packets of the interface to the rules of the pod.
	//
	// Message: FIELD: policies cannot be enforced on interface INTERFACE of network NETWORK: PROBLEM
	NotEnforceable Reason = "NotEnforceable"

	// BridgeNotEnforced is about a MultiNetworkPolicy: the pod has a bridge, as for a virtual machine, and the kernel of its node cannot
	// enforce policies in bridges.
	//
	// Message: pod POD: the pod has a bridge, as of a virtual machine, and the kernel of the node PROBLEM
	BridgeNotEnforced Reason = "BridgeNotEnforced"

	// InAuditMode is about a MultiNetworkPolicy: it is in audit mode, by its annotation or by --audit, so it isolates nothing.
	//
	// Message: FIELD: the policy is in audit mode: packets that it would drop pass, and are counted and reported, unless another policy drops them
	InAuditMode Reason = "InAuditMode"

	// PodLimitExceeded is about a MultiNetworkPolicy: with the other policies, it exceeds a limit of a pod. It isolates this pod and
	// allows nothing there.
	//
	// Message: pod POD: PROBLEM
	PodLimitExceeded Reason = "PodLimitExceeded"

	// UndefinedNetwork is about a MultiNetworkPolicy: the network has no NetworkAttachmentDefinition and no pod. Most often its name is
	// wrong.
	//
	// Message: FIELD: no NetworkAttachmentDefinition NETWORK exists and no pod is attached to such a network, so the policy has no effect there
	UndefinedNetwork Reason = "UndefinedNetwork"

	// PolicyNotEnforced is about a Pod: the agent refused its start by NRI, because its policies cannot be enforced. The kubelet retries.
	//
	// Message: The pod does not start: policies cannot be enforced: PROBLEM
	PolicyNotEnforced Reason = "PolicyNotEnforced"
)
