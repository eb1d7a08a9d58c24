package informers_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

const podWithEverything = `
apiVersion: v1
kind: Pod
metadata:
  namespace: ns
  name: a
  uid: u
  labels: {app: web}
  annotations:
    k8s.v1.cni.cncf.io/network-status: '[{"name": "ns/net", "interface": "net1", "ips": ["10.0.0.1"]}]'
    k8s.v1.cni.cncf.io/networks: net
    multi-networkpolicy/trace: "10.0.0.9"
    kubectl.kubernetes.io/last-applied-configuration: a long text
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: x}]
spec:
  nodeName: NODE
  serviceAccountName: s
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
    - {name: once, image: i, ports: [{name: gone, containerPort: 1}]}
    - {name: sidecar, image: i, restartPolicy: Always, ports: [{name: metrics, containerPort: 9090}]}
  containers:
    - name: c
      image: i
      env: [{name: A, value: b}]
      ports: [{name: http, containerPort: 80, hostPort: 8080}, {containerPort: 81}]
status:
  phase: Running
  podIP: 10.244.0.1
`

// The sink gets the part of a pod that policies depend on. Annotations that only the pod's own node needs are left out for
// pods of other nodes.
func TestPod(t *testing.T) {
	const trace = "10.0.0.9"
	want := cache.Pod{
		Key: cache.Key{Namespace: "ns", Name: "a"}, UID: "u",
		Labels: labelindex.NewSet(map[string]string{"app": "web"}),
		Ports: []policy.NamedPort{
			{PortName: policy.PortName{Proto: policy.TCP, Name: "http"}, Number: 80},
			{PortName: policy.PortName{Proto: policy.TCP, Name: "metrics"}, Number: 9090},
		},
		Status:      `[{"name": "ns/net", "interface": "net1", "ips": ["10.0.0.1"]}]`,
		StatusField: cache.StatusAnnotation,
	}
	for node, isLocal := range map[string]bool{"here": true, "there": false} {
		for name, source := range map[string]func(t *testing.T, f *informers.Files) informers.Source{
			"files":      func(_ *testing.T, f *informers.Files) informers.Source { return f.Source(settings) },
			"API server": func(t *testing.T, f *informers.Files) informers.Source { s, _ := apiSource(t, f, true); return s },
		} {
			t.Run(name+" "+node, func(t *testing.T) {
				f := informers.NewFiles()
				load(t, f, strings.ReplaceAll(podWithEverything, "NODE", node))
				s := start(t, source(t, f))
				s.synced(t)
				want := want
				want.Node = node
				if isLocal {
					want.Requested = "net"
				}
				if diff := cmp.Diff(want, s.sink.pod("a")); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				r, _ := s.observer.last("Pod ns/a")
				if r == nil || r.IsLocal != isLocal || (r.Trace != nil) != isLocal || isLocal && *r.Trace != trace {
					t.Errorf("observed %+v", r)
				}
			})
		}
	}
}
