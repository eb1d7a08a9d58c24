package command

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// endpoint is an end of a connection: an address or a pod.
type endpoint struct {
	addr netip.Addr // invalid: the end is a pod
	pod  cache.Key
}

// parseEndpoint reads the value of --from or --to.
func parseEndpoint(flag, text, namespace string) (endpoint, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return endpoint{addr: addr.Unmap()}, nil // ::ffff:10.0.0.1 is an address of IPv4
	}
	// No pod has a name of digits and dots on purpose.
	if strings.Trim(text, "0123456789.:") == "" {
		return endpoint{}, usageError{fmt.Errorf("--%s %q: must be an IP address or NAMESPACE/NAME of a pod", flag, text)}
	}
	pod, err := parsePodKey(flag, text, namespace)
	return endpoint{pod: pod}, err
}

// parsePodKey reads NAMESPACE/NAME, or NAME in the given namespace.
// An error is a usage error.
func parsePodKey(flag, text, namespace string) (cache.Key, error) {
	key, err := parseKey(text, namespace)
	if err != nil {
		return key, usageError{fmt.Errorf("--%s %q: %w", flag, text, err)}
	}
	return key, nil
}

// parseKey reads NAMESPACE/NAME, or NAME in the given namespace.
func parseKey(text, namespace string) (cache.Key, error) {
	key := cache.Key{Namespace: namespace, Name: text}
	if first, second, found := strings.Cut(text, "/"); found {
		key = cache.Key{Namespace: first, Name: second}
	}
	if key.Namespace == "" || key.Name == "" || strings.Contains(key.Name, "/") {
		return key, errors.New("must be NAMESPACE/NAME")
	}
	return key, nil
}

// question is the question of a command line of explain: about a pod and an address, or about two pods.
type question struct {
	query    explain.Query // of a pod and an address; Pod is empty for two pods
	from, to cache.Key     // two pods
}

// ask returns the question of the flags --pod, --from and --to. Its errors are usage errors.
func ask(pod, from, to, namespace string) (question, error) {
	var q question
	ends := map[string]endpoint{}
	for flag, text := range map[string]string{"from": from, "to": to} {
		if text == "" {
			continue
		}
		end, err := parseEndpoint(flag, text, namespace)
		if err != nil {
			return q, err
		}
		ends[flag] = end
	}
	source, destination := ends["from"], ends["to"]
	if pod != "" {
		key, err := parsePodKey("pod", pod, namespace)
		switch {
		case err != nil:
			return q, err
		case len(ends) != 1:
			return q, usageError{errors.New("with --pod, either --from or --to must be given")}
		case from != "":
			destination = endpoint{pod: key}
		default:
			source = endpoint{pod: key}
		}
		if !source.addr.IsValid() && !destination.addr.IsValid() {
			return q, usageError{errors.New("with --pod, --from or --to must be an IP address; for two pods, leave out --pod")}
		}
	} else if len(ends) != 2 {
		return q, usageError{errors.New("the question is incomplete: give --from and --to, or --pod and one of them")}
	}
	return q, q.set(source, destination)
}

// set sets the question about a connection between two ends.
func (q *question) set(source, destination endpoint) error {
	switch {
	case source.addr.IsValid() && destination.addr.IsValid():
		return usageError{errors.New("--from and --to are both addresses: one of them must be a pod")}
	case source.addr.IsValid():
		q.query = explain.Query{Pod: destination.pod, Direction: engine.Ingress, Remote: source.addr}
	case destination.addr.IsValid():
		q.query = explain.Query{Pod: source.pod, Direction: engine.Egress, Remote: destination.addr}
	case source.pod == destination.pod:
		return usageError{errors.New("--from and --to are the same pod")}
	default:
		q.from, q.to = source.pod, destination.pod
	}
	return nil
}
