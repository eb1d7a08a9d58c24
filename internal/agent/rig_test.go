package agent

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers/sandbox"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

func TestMain(m *testing.M) { lab.Main(m) }

// rig is a node and the configuration of its agent.
type rig struct {
	*node.Node
	t      *testing.T
	config Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Node: node.New(t), t: t}
	server, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	r.config = Config{
		Version: "test", Server: server, Cache: cache.Options{
			Node: node.Name, NetworkPlugins: cache.DefaultNetworkPlugins(), UnenforceableRuntimes: cache.DefaultUnenforceableRuntimes(),
		},
		RuntimeEndpoint: r.RuntimeSocket, NRISocket: sandbox.NRINone,
	}
	return r
}

// start starts the agent. It fails the test when the agent ends by itself.
func (r *rig) start() (stop func()) { return r.startWith(testr.New(r.t)) }

func (r *rig) startWith(log logr.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), log))
	done := make(chan error, 1)
	go func() { done <- Run(ctx, r.config) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		select {
		case err := <-done:
			r.t.Errorf("the agent ended by itself: %v", err)
		default:
		}
		cancel()
		end := time.Now()
		if err := <-done; err != nil {
			r.t.Errorf("the agent: %v", err)
		}
		if took := time.Since(end); took > 5*time.Second {
			r.t.Errorf("the agent took %s to end", took)
		}
	}
	r.t.Cleanup(stop)
	return stop
}
