package informers_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// A snapshot of manifests fills a cache without an API server, as the subcommands render and explain do.
func ExampleSnapshot() {
	manifests, err := informers.ReadFS(fstest.MapFS{"objects.yaml": {Data: []byte(`
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
---
apiVersion: k8s.cni.cncf.io/v1beta1
kind: MultiNetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}}
`)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	files := informers.NewFiles()
	if err := files.Load(manifests); err != nil {
		fmt.Println(err)
		return
	}
	limits := policy.DefaultLimits()
	objects := cache.New(cache.Options{Limits: limits})
	err = informers.Snapshot(context.Background(), files.Source(informers.Settings{Limits: &limits}), objects,
		func(kind string, key cache.Key, problems []policy.Problem) { fmt.Println(kind, key, problems[0].Field) })
	fmt.Println(objects.Pods(), objects.Policies(), err)
	// Output:
	// MultiNetworkPolicy shop/deny metadata.annotations[k8s.v1.cni.cncf.io/policy-for]
	// [shop/web] [shop/deny] <nil>
}
