package cache

import (
	"encoding/json"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// trialSpec needs a set of every kind: addresses of blocks, addresses of pods, ports, and endpoints of named ports.
const trialSpec = `{
	"policyTypes": ["Ingress", "Egress"],
	"ingress": [{
		"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}}, {"ipBlock": {"cidr": "2001:db8::/32"}}],
		"ports": [{"port": 80}, {"port": 5000, "endPort": 5999, "protocol": "UDP"}, {"port": 9, "protocol": "SCTP"}]
	}],
	"egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}]
}`

// Trial returns the tables of a sample pod with a virtual machine and a policy with everything. engine.Try then shows
// whether the kernel accepts everything that the tables of pods consist of, custom rules included.
func Trial(o Options) engine.Tables {
	o.Node, o.Limits, o.LockHeld = "trial", policy.DefaultLimits(), nil
	if o.LogsAudits() {
		o.DropLog = DropLogAll // so that the sample reports
	}
	o.split = splitBounds{below: 1} // so that the pods of the sample get a hash set
	c := New(o)
	key := Key{Namespace: "trial", Name: "trial"}
	pod := Pod{
		Key: key, UID: "trial", Node: o.Node, Labels: labelindex.NewSet(map[string]string{virtualMachineLabel: key.Name}), StatusField: StatusAnnotation,
		Ports:  []policy.NamedPort{{PortName: policy.PortName{Proto: policy.TCP, Name: "http"}, Number: 8080}},
		Status: `[{"name": "trial", "interface": "net1", "ips": ["192.0.2.1", "fd00::1"]}]`,
	}
	c.UpsertPod(pod)
	networks := key.Name // a network without a definition, so it is isolated
	c.UpsertPolicy(policy.Compile(policy.Object{Key: key, Networks: &networks, Spec: json.RawMessage(trialSpec)}, c.Limits()))
	target, _ := c.Plan(PodID{Key: key, UID: pod.UID})
	return target.Tables
}
