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

// Informers follow the changes of a source. Files stand for the API server here.
func ExampleNew() {
	limits := policy.DefaultLimits()
	settings := informers.Settings{Limits: &limits}
	objects := cache.New(cache.Options{Limits: limits})
	files := informers.NewFiles()
	changed := make(chan struct{}, 1)
	in := informers.New(context.Background(), informers.Config{
		Source: files.Source(settings), Sink: objects, Settings: settings,
		Notify: func() {
			select {
			case changed <- struct{}{}:
			default: // the reader looks at the newest state anyway
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	in.Start(ctx)
	manifests, err := informers.ReadFS(fstest.MapFS{"pod.yaml": {Data: []byte("{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}")}})
	if err == nil {
		err = files.Load(manifests)
	}
	if err != nil {
		fmt.Println(err)
	}
	for len(objects.Pods()) == 0 {
		<-changed
	}
	cancel()
	in.Wait()
	fmt.Println(objects.Pods())
	// Output: [shop/web]
}

// printedEvents is an EventSink that prints Events.
type printedEvents struct{}

func (printedEvents) Warn(about informers.Subject, reason policy.Reason, message string) {
	fmt.Println(about.NamespacedName, reason, message)
}

// A Reporter publishes each problem of an object once.
func ExampleNewReporter() {
	r := informers.NewReporter(printedEvents{})
	web := informers.Subject{Kind: informers.KindPolicy, NamespacedName: cache.Key{Namespace: "shop", Name: "web"}}
	problems := []policy.Problem{{Field: "spec.ingress[0].ports[0].port", Message: "80000 is not a port"}}
	r.Report(context.Background(), web, problems)
	r.Report(context.Background(), web, problems)
	// Output: shop/web InvalidMultiNetworkPolicy spec.ingress[0].ports[0].port: 80000 is not a port
}
