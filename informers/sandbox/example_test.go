package sandbox_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// startRuntime starts a container runtime with the sandbox of the pod shop/web. end stops the runtime.
func startRuntime() (socket string, end func()) {
	dir, err := os.MkdirTemp("", "cri")
	if err != nil {
		log.Fatal(err)
	}
	socket = filepath.Join(dir, "cri.sock")
	runtime := cluster.NewRuntime(socket)
	runtime.Set(cluster.Sandbox{ID: "s1", UID: "1", Namespace: "shop", Name: "web", CreatedAt: 1, Info: cluster.InfoOf("/proc/self/ns/net")})
	if err := runtime.Start(); err != nil {
		log.Fatal(err)
	}
	return socket, func() {
		runtime.Stop()
		if err := os.RemoveAll(dir); err != nil {
			log.Fatal(err)
		}
	}
}

// sandboxes is a Sink that sends each sandbox to a channel.
type sandboxes chan cache.Sandbox

func (s sandboxes) SetSandbox(_ types.UID, found cache.Sandbox) { s <- found }
func (s sandboxes) DeleteSandbox(types.UID)                     {}

// Sandboxes give the sink the network namespace of each pod on the node.
func ExampleNew() {
	socket, end := startRuntime()
	defer end()
	sink := make(sandboxes, 1)
	s := sandbox.New(sandbox.Config{Endpoint: socket, Sink: sink, Notify: func() {}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	found := <-sink
	fmt.Println(found.Pod, found.ID, found.NetNS)
	cancel()
	<-done
	// Output: shop/web s1 /proc/self/ns/net
}

// List asks the runtime once, for commands such as cleanup.
func ExampleList() {
	socket, end := startRuntime()
	defer end()
	list, err := sandbox.List(context.Background(), socket, "")
	for _, s := range list {
		fmt.Println(s.Pod, s.NetNS, s.Err)
	}
	fmt.Println(err)
	// Output:
	// shop/web /proc/self/ns/net <nil>
	// <nil>
}

// states is an observer of the connection to NRI.
type states struct{ sandbox.NRIObserver }

func (states) NRIState(s sandbox.NRIState) { fmt.Println("NRI", s) }

// Without NRI, Run returns at the end of the context, and Enforce is never called.
func ExampleNewNRI() {
	limits := policy.DefaultLimits()
	state := cache.New(cache.Options{Node: "node-1", Limits: limits})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	sandbox.NewNRI(ctx, sandbox.NRIConfig{
		Socket: sandbox.NRINone, Node: "node-1", Settings: informers.Settings{Node: "node-1", Limits: &limits},
		Sandboxes: sandbox.New(sandbox.Config{Sink: state, Notify: func() {}}),
		Announce:  state.AnnouncePod,
		Enforce:   func(context.Context, cache.PodID) (bool, error) { return true, nil },
		Observer:  states{},
	}).Run(ctx)
	// Output: NRI off
}
