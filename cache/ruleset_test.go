package cache

import (
	"os"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"

	"github.com/google/go-cmp/cmp"
)

// TestRulesetText prints the table of a pod that uses nearly all features. Names with a hash are the same in each run.
func TestRulesetText(t *testing.T) {
	c := newCluster(t,
		model.NewNamespace("default", ""), model.NewNamespace("monitoring", "team=ops"),
		model.NewPod("web", "app=web", "net1 net-a 10.0.0.1 fd00::1", "net2 net-b 10.9.0.1"),
		model.NewPeer("client-1", "app=client", "net1 net-a 10.0.0.2 fd00::2"),
		model.NewPeer("client-2", "app=client", "net1 net-a 10.0.0.3"),
		model.WithPorts(model.NewPeer("monitoring/prom", "", "net1 default/net-a 10.0.0.9"), "metrics=9090/TCP"),
		model.NewPolicy("web-policy", "net-a", `
podSelector: {matchLabels: {app: web}}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - podSelector: {matchLabels: {app: client}}
  - ipBlock: {cidr: 192.168.0.0/16, except: [192.168.1.0/24]}
  ports:
  - {port: 80}
  - {port: 443}
  - {protocol: UDP, port: 5000, endPort: 5010}
- ports: [{protocol: SCTP}]
egress:
- to: [{namespaceSelector: {matchLabels: {team: ops}}}]
  ports: [{port: metrics}, {port: 53, protocol: UDP}]
`))
	want, err := os.ReadFile("testdata/web.nft")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(renderPod(t, c, "web"), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
