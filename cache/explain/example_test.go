package explain_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"testing/fstest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/explain"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

const pod = `
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: storage, namespace: shop}
spec: {config: '{"type": "macvlan"}'}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  annotations:
    k8s.v1.cni.cncf.io/network-status: '[{"name": "shop/storage", "interface": "net1", "ips": ["10.9.0.1"]}]'
`

const web = `---
apiVersion: k8s.cni.cncf.io/v1beta1
kind: MultiNetworkPolicy
metadata: {name: web, namespace: shop, annotations: {k8s.v1.cni.cncf.io/policy-for: storage}}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 10.9.0.0/24}}], ports: [{port: 80}]}]
`

// load returns a cache with the objects of a manifest.
func load(manifest string) *cache.Cache {
	manifests, err := informers.ReadFS(fstest.MapFS{"objects.yaml": {Data: []byte(manifest)}})
	if err != nil {
		log.Fatal(err)
	}
	files, limits := informers.NewFiles(), policy.DefaultLimits()
	if err := files.Load(manifests); err != nil {
		log.Fatal(err)
	}
	c := cache.New(cache.Options{NetworkPlugins: []string{"macvlan"}, Limits: limits})
	if err := informers.Snapshot(context.Background(), files.Source(informers.Settings{Limits: &limits}), c, nil); err != nil {
		log.Fatal(err)
	}
	return c
}

// Explain names the rule that allows a packet, or the reason why no rule does.
func ExampleExplain() {
	c := load(pod + web)
	for _, remote := range []string{"10.9.0.2", "10.8.0.2"} {
		e, err := explain.Explain(c, explain.Query{
			Pod: cache.Key{Namespace: "shop", Name: "web"}, Direction: engine.Ingress, Remote: netip.MustParseAddr(remote), Protocol: 6, Port: 80,
		})
		if err != nil {
			log.Fatal(err)
		}
		for _, i := range e.Interfaces {
			fmt.Println(remote, i.Interface, i.Verdict, i.DecidedBy)
		}
	}
	// Output:
	// 10.9.0.2 net1 allowed shop/web ingress[0]
	// 10.8.0.2 net1 denied no rule
}

// Diff lists the connections that a new policy opens and closes.
func ExampleDiff() {
	for _, change := range explain.Diff(load(pod), load(pod+web)) {
		fmt.Println(change.Pod, change.Interface, change.Direction, change.Before, "to", change.After)
		for _, f := range change.Closed {
			fmt.Println("closed:", f.Peers, "ports", f.Ports)
		}
	}
	// Output:
	// shop/web net1 ingress open to isolated
	// closed: 10.9.0.0/24 ports all but 80/tcp
	// closed: all but 10.9.0.0/24 ports all
}
