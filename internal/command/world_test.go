package command

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// Objects from an API server and from manifests give the same answer.
func TestLiveWorld(t *testing.T) {
	r := node.New(t)
	r.Load(node.Cluster + node.Policy)
	var live, text bytes.Buffer
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"explain", "--pod", "ns/server", "--from", "10.9.0.2", "--port", "80"}, `ALLOWED: 80/tcp, ingress on net1 of ns/server from 10.9.0.2
  decided by ns/p ingress[0]: peers include 10.9.0.2 (ns: pods app=friend); any protocol and port is allowed
  10.9.0.2 is pod ns/friend (net1 on ns/net)
  policy ns/p isolates the interface
    yes ingress[0]: peers include 10.9.0.2 (ns: pods app=friend); any protocol and port is allowed
    invalid: spec.ingress[0].from[1].ipBlock.cidr: "10.9.0.0/33" is not a CIDR, so the block allows nobody
`},
		{[]string{"render", "--pod", "ns/friend"}, "warning: MultiNetworkPolicy ns/p: spec.ingress[0].from[1].ipBlock.cidr: " +
			"\"10.9.0.0/33\" is not a CIDR, so the block allows nobody\n# ns/friend gets no table: no policy isolates an interface of it\n"},
	} {
		live.Reset()
		if code := Main("v1", append(tc.args, "--kubeconfig", r.Kubeconfig), &live, &live); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if diff := cmp.Diff(tc.want, live.String()); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.args, diff)
		}
	}
	r.API.Stop()
	if code := Main("v1", []string{"render", "--pod", "ns/friend", "--kubeconfig", r.Kubeconfig}, &text, &text); code != 1 {
		t.Errorf("exit code %d without an API server: %s", code, text.String())
	}
}
