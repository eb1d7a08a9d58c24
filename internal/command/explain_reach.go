package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
)

// reach prints whether a pod reaches another pod.
func (o *explainOptions) reach(w *world, q question, p packet, namespace string, out, warnings io.Writer) error {
	network, err := w.networkOf(o.network, namespace)
	if err != nil {
		return err
	}
	if err := w.hasAll(warnings, q.from, q.to); err != nil {
		return err
	}
	port, err := p.resolve(w.cache, q.to)
	if err != nil {
		return err
	}
	r, err := explain.Reaches(w.cache, explain.ReachQuery{
		From: q.from, To: q.to, Network: network, Protocol: p.protocol, Port: port, ICMPType: p.icmpType,
	})
	if err != nil {
		return err
	}
	return o.output.write(out, r, func(out io.Writer) error { return printReach(out, r) })
}

// networkOf returns the network of --network; the zero value if the text is empty. A network without pods is an error, since its
// name is likely wrong.
func (w *world) networkOf(text, namespace string) (cache.Key, error) {
	if text == "" {
		return cache.Key{}, nil
	}
	key, err := parsePodKey("network", text, namespace)
	if err != nil {
		return key, err
	}
	names := w.networkNames()
	for _, name := range names {
		if name == key.String() {
			return key, nil
		}
	}
	return key, fmt.Errorf("--network %s: no pod in %s is on it%s", key, w.origin, didYouMean(key.String(), names))
}

// printReach writes the verdict on two pods, and a block for each path. For example:
//
//	DENIED: 80/tcp from shop/frontend to shop/web
//	  DENIED on shop/backbone: net1 10.10.0.11 -> net1 10.10.0.12
//	    egress of shop/frontend: ALLOWED, decided by …
//	    ingress of shop/web: DENIED, decided by …
func printReach(out io.Writer, r explain.Reach) error {
	var b strings.Builder
	colors := colorsOf(out)
	fmt.Fprintf(&b, "%s: %s from %s to %s\n", colors.verdict(r.Verdict), r.Packet, r.From, r.To)
	if r.Reason != "" {
		fmt.Fprintf(&b, "  %s\n", r.Reason)
	}
	for i := range r.Paths {
		p := &r.Paths[i]
		fmt.Fprintf(&b, "  %s on %s: %s %s -> %s %s\n", colors.verdict(p.Verdict), p.Network,
			p.FromInterface, p.FromAddress, p.ToInterface, p.ToAddress)
		for _, end := range []struct {
			name   string
			answer explain.InterfaceExplanation
		}{{"egress of " + r.From, p.Egress}, {"ingress of " + r.To, p.Ingress}} {
			fmt.Fprintf(&b, "    %s: %s\n", end.name, colors.verdict(end.answer.Verdict))
			printDecision(&b, end.answer, "      ")
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
