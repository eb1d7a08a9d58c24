package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// The pod server of node.Cluster is made at noon. The type of its network is edited to a type that policies do not isolate.
const editedCluster = `
{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: ns, name: net, generation: GENERATION,
  creationTimestamp: "2026-01-01T11:00:00Z", managedFields: [{manager: kubectl-create, operation: Update, time: "EDITED", fieldsType: FieldsV1}]},
  spec: {config: '{"type": "TYPE"}'}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: server, uid: server, creationTimestamp: "2026-01-01T12:00:00Z", labels: {app: server},
  annotations: {k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.9.0.1"]}]'}},
  spec: {nodeName: here}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: friend, uid: friend, labels: {app: friend}, annotations: {
  k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.9.0.2"]}]'}},
  spec: {nodeName: elsewhere}, status: {phase: Running}}
`

func edited(generation int, at, pluginType string) string {
	return strings.NewReplacer("GENERATION", fmt.Sprint(generation), "EDITED", "2026-01-01T"+at+"Z", "TYPE", pluginType).Replace(editedCluster) + node.Policy
}

// An edit of a definition isolates no pod less that was attached before, and a restart does not either.
func TestEditedDefinition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.StartRuntime("server")
	r.Load(edited(1, "11:00:00", "macvlan"))
	stop := r.start()
	r.Becomes("enforced", true, false)
	for _, pluginType := range []string{"mcvlan", "calico", ""} {
		r.Load(edited(2, "13:00:00", pluginType))
		r.Stays("enforced with the type "+pluginType, true, false)
	}
	r.Load(edited(2, "12:00:00", "calico"))
	r.Stays("enforced, as nobody knows which was first", true, false)
	stop()
	r.start()
	r.Stays("enforced after a restart", true, false)
	r.Load(edited(2, "11:59:59", "calico"))
	r.Becomes("open, as the pod is younger than the edit", true, true)
	r.Load(edited(1, "13:00:00", "calico"))
	r.Stays("open, as the definition was never edited", true, true)
}
