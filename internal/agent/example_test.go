package agent_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// An agent reads objects from an API server and sandboxes from a container runtime. A stranger reaches the server until the
// agent enforces the policy.
func ExampleRun() {
	network, err := lab.New()
	check(err)
	server, err := network.Host("server", netip.MustParsePrefix("10.9.0.1/16"))
	check(err)
	stranger, err := network.Host("stranger", netip.MustParsePrefix("10.9.0.3/16"))
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	check(server.Serve(ctx, lab.TCP, 80))
	reaches := func() bool {
		return lab.Probe(ctx, stranger, netip.MustParseAddrPort("10.9.0.1:80"), lab.TCP, time.Second).Verdict == lab.Allowed
	}

	manifests, err := informers.ReadFS(fstest.MapFS{"objects.yaml": {Data: []byte(node.Cluster + node.Policy)}})
	check(err)
	files := informers.NewFiles()
	check(files.Load(manifests))
	api, err := cluster.NewAPI(files, true)
	check(err)
	dir, err := os.MkdirTemp("", "agent")
	check(err)
	runtime := cluster.NewRuntime(filepath.Join(dir, "cri.sock"))
	runtime.Set(cluster.Sandbox{
		ID: "s1", UID: "server", Namespace: "ns", Name: "server", CreatedAt: 1, Info: cluster.InfoOf(node.PathOf(server)),
	})
	check(runtime.Start())

	fmt.Println("before:", reaches())
	done := make(chan error)
	go func() {
		done <- agent.Run(ctx, agent.Config{
			Server: api.Config(), RuntimeEndpoint: filepath.Join(dir, "cri.sock"), NRISocket: sandbox.NRINone,
			Cache: cache.Options{Node: node.Name, NetworkPlugins: cache.DefaultNetworkPlugins()},
		})
	}()
	for reaches() {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("after:", reaches())
	cancel()
	check(<-done)
	runtime.Stop()
	api.Stop()
	check(network.Close())
	check(os.RemoveAll(dir))
	// Output:
	// before: true
	// after: false
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
