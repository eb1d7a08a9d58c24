package main

import "slices"

// everything is what passes where no policy is.
func everything(flow) bool { return true }

// examples says what passes under the policies of manifests/examples, read by a person.
func examples(f flow) bool {
	switch f.network {
	case "net1":
		return maySend(f) && mayReceive(f)
	case "net2":
		return false // deny-all
	default:
		return true // no policy is about the cluster's own network
	}
}

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

func mayReceive(f flow) bool {
	if f.to != "web" {
		return true
	}
	// web-policy names a block of IPv4 addresses, and no IPv6 ones.
	peer := f.from == "frontend" || f.from == "monitor" && f.address.Is4()
	return peer && (f.service == "tcp/80" || f.service == "udp/53")
}

// invalid says what passes under invalid-policy.yaml alone.
func invalid(f flow) bool {
	return f.network != "net1" || f.to != "other" || f.from == "frontend"
}
