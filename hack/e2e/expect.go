package main

import "slices"

// everything is the expectation without policies.
// It is the expectation before the policies and after their deletion.
func everything(flow) bool { return true }

// examples reports whether a flow passes under the policies of manifests/examples. It is written by hand, without code
// of the agent, so that an error of the agent cannot also be here.
func examples(f flow) bool {
	switch f.network {
	case "net1":
		return maySend(f) && mayReceive(f)
	case "net2":
		return false // deny-all
	default:
		return true // no policy is for the cluster network
	}
}

// maySend is the expectation of the sender's egress policies on net1.
// A pod that no egress policy selects may send everything.
func maySend(f flow) bool {
	switch f.from {
	case "web": // web-policy
		return f.to == "database" && f.service == "tcp/5432"
	case "frontend": // frontend-egress, where 80 to 8080 is a range
		peer := f.to == "web" || f.to == "database"
		return peer && slices.Contains([]string{"tcp/80", "tcp/5432", "tcp/8080", "udp/53"}, f.service)
	default:
		return true
	}
}

// mayReceive is the expectation of the receiver's ingress policies on net1.
// A pod that no ingress policy selects may receive everything.
func mayReceive(f flow) bool {
	if f.to != "web" {
		return true
	}
	// The address block of web-policy is IPv4.
	peer := f.from == "frontend" || f.from == "monitor" && f.address.Is4()
	return peer && (f.service == "tcp/80" || f.service == "udp/53")
}

// invalid reports whether a flow passes under invalid-policy.yaml alone: the policy isolates the pod, and only its
// valid peer may send.
// The policy has an invalid ipBlock, which must neither open nor close anything else.
func invalid(f flow) bool {
	return f.network != "net1" || f.to != "other" || f.from == "frontend"
}
