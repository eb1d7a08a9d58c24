package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/apiserver"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// The cluster on the API server of the measurement of its load. A tenth of the pods has ended, and a tenth is on the host's network.
const (
	loadPods       = 2000
	loadNamespaces = 50
	loadPolicies   = 100
	loadRate       = 5 // changes of pods per second
)

// apiWay is a way to follow the objects of a cluster.
type apiWay struct {
	name string
	// watch follows all objects until the context ends, and returns once it has them.
	watch func(context.Context, *rest.Config) error
}

var apiWays = []apiWay{{"this agent", watchAsAgent}, {"shared informers, as the agents with knftables and with iptables", watchAsPeers}}

// measureAPILoad counts the requests and the bytes of an agent at a real API server: until it has all objects, and while pods change.
func measureAPILoad(o *options) (text string, err error) {
	dir, err := os.MkdirTemp("", "scale-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := apiserver.Start(context.Background(), dir, apiserver.AlwaysAllow)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	// The watches end before the server does.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, err := kubernetes.NewForConfig(server.Config(apiserver.Token))
	if err != nil {
		return "", err
	}
	load := &apiLoad{client: client, cluster: cluster{pods: loadPods, namespaces: loadNamespaces, policies: loadPolicies, spacing: 5}}
	if err := load.createAll(ctx); err != nil {
		return "", err
	}
	var counts []*traffic
	for _, w := range apiWays {
		config, count := server.Config(apiserver.Token), &traffic{}
		count.attach(config)
		if err := w.watch(ctx, config); err != nil {
			return "", fmt.Errorf("%s: %w", w.name, err)
		}
		time.Sleep(time.Second) // the last answers arrive
		count.mark()
		counts = append(counts, count)
	}
	changes, err := load.churn(ctx, o.load)
	if err != nil {
		return "", err
	}
	lines := [][]string{{"way", "requests at the start", "received", "sent", "requests per hour of churn", "received per change", "sent per hour"}}
	for i, w := range apiWays {
		start, churned := counts[i].start, counts[i].now().minus(counts[i].start)
		hour := time.Hour.Seconds() / o.load.Seconds()
		lines = append(lines, []string{
			w.name, fmt.Sprint(start.requests), report.Bytes(start.received), report.Bytes(start.sent),
			fmt.Sprintf("%.0f", float64(churned.requests)*hour), report.Bytes(churned.received / uint64(changes)), report.Bytes(uint64(float64(churned.sent) * hour)),
		})
	}
	return report.Table(lines), nil
}

// watchAsAgent follows the objects with the informers of this agent.
func watchAsAgent(ctx context.Context, config *rest.Config) error {
	options := cache.Options{Node: "node-0", NetworkPlugins: cache.DefaultNetworkPlugins()}
	c := cache.New(options)
	settings := informers.Settings{Node: options.Node, Limits: c.Limits()}
	source, err := informers.FromClients(config, settings)
	if err != nil {
		return err
	}
	in := informers.New(ctx, informers.Config{Source: source, Sink: c, Settings: settings, Notify: func() {}})
	in.Start(ctx)
	for !in.HasSynced() {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// watchAsPeers follows the objects as both other agents do: shared informers without selectors, for the four kinds. The client of the
// core kinds speaks protobuf by default, as do the clients of controller-runtime.
func watchAsPeers(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	custom, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	core := kubeinformers.NewSharedInformerFactory(client, 15*time.Minute)
	core.Core().V1().Pods().Informer()
	core.Core().V1().Namespaces().Informer()
	others := dynamicinformer.NewDynamicSharedInformerFactory(custom, 15*time.Minute)
	others.ForResource(schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}).Informer()
	others.ForResource(schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1beta1", Resource: "multi-networkpolicies"}).Informer()
	core.Start(ctx.Done())
	others.Start(ctx.Done())
	core.WaitForCacheSync(ctx.Done())
	others.WaitForCacheSync(ctx.Done())
	return nil
}

// traffic counts the requests and bytes of a client.
type traffic struct {
	requests, received, sent atomic.Uint64
	start                    counted
}

// counted are the counts at a moment, or their differences.
type counted struct{ requests, received, sent uint64 }

func (c counted) minus(o counted) counted {
	return counted{c.requests - o.requests, c.received - o.received, c.sent - o.sent}
}

func (t *traffic) now() counted {
	return counted{t.requests.Load(), t.received.Load(), t.sent.Load()}
}

func (t *traffic) mark() { t.start = t.now() }

// attach makes a client count. The bytes are those of the TCP connections, TLS included.
func (t *traffic) attach(config *rest.Config) {
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &trafficConn{conn, t}, nil
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return roundTripper{next, t} })
}

type trafficConn struct {
	net.Conn
	traffic *traffic
}

func (c *trafficConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.traffic.received.Add(uint64(n))
	return n, err
}

func (c *trafficConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.traffic.sent.Add(uint64(n))
	return n, err
}

type roundTripper struct {
	next    http.RoundTripper
	traffic *traffic
}

func (r roundTripper) RoundTrip(q *http.Request) (*http.Response, error) {
	r.traffic.requests.Add(1)
	return r.next.RoundTrip(q)
}

// apiLoad creates and changes the objects.
type apiLoad struct {
	client  *kubernetes.Clientset
	cluster cluster
}

// createAll creates the kinds and the objects.
func (l *apiLoad) createAll(ctx context.Context) error {
	if err := apiserver.CreateKinds(ctx, l.client); err != nil {
		return err
	}
	for i := range loadNamespaces {
		ns := l.cluster.namespace(i)
		ns.UID = ""
		if _, err := l.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := apiserver.Post(ctx, l.client, apiserver.NADsPath("default"), withoutServerFields(nadJSON)); err != nil {
		return err
	}
	for i := range loadPolicies {
		path := apiserver.PoliciesPath(namespaceName(i % loadNamespaces))
		if err := apiserver.Post(ctx, l.client, path, withoutServerFields(l.cluster.policyJSON(i))); err != nil {
			return err
		}
	}
	return l.createPods(ctx)
}

// withoutServerFields removes a resource version, which a client must not set on a new object.
func withoutServerFields(object string) []byte {
	return []byte(strings.Replace(object, `"resourceVersion": "1",`, "", 1))
}

// createPods creates the pods.
func (l *apiLoad) createPods(ctx context.Context) error {
	return concurrently(loadPods, func(i int) error { return l.createPod(ctx, i) })
}

// concurrently calls f with the numbers below n, eight at the same time.
func concurrently(n int, f func(i int) error) error {
	numbers := make(chan int)
	errs := make([]error, 8)
	var running sync.WaitGroup
	for w := range errs {
		running.Go(func() {
			for i := range numbers {
				errs[w] = errors.Join(errs[w], f(i))
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	running.Wait()
	return errors.Join(errs...)
}

func (l *apiLoad) createPod(ctx context.Context, i int) error {
	p := l.cluster.pod(i, l.cluster.app(i))
	status := p.Status
	p.UID, p.CreationTimestamp, p.ManagedFields = "", metav1.Time{}, nil
	p.Spec.HostNetwork = i%10 == 1
	for c := range p.Spec.Containers {
		p.Spec.Containers[c].Name, p.Spec.Containers[c].VolumeMounts = fmt.Sprintf("app-%d", c), nil
	}
	pods := l.client.CoreV1().Pods(p.Namespace)
	created, err := pods.Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if created.Status = status; i%10 == 0 {
		created.Status.Phase = corev1.PodSucceeded
	}
	_, err = pods.UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

// churn changes the labels of pods for a time, and returns the number of changes. The pods that have ended, or are on the host's network, do
// not change.
func (l *apiLoad) churn(ctx context.Context, length time.Duration) (changes int, err error) {
	ticker := time.NewTicker(time.Second / loadRate)
	defer ticker.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); changes++ {
		<-ticker.C
		i := changes*10%loadPods + 2 + changes%8
		p := l.cluster.pod(i, "")
		patch := fmt.Sprintf(`{"metadata": {"labels": {"change": "c-%d"}}}`, changes)
		if _, err := l.client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return changes, err
		}
	}
	return changes, nil
}
