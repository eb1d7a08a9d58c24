package manifests

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

// memorySlack covers the rest of the memory in the agent's cgroup: thread stacks, page tables, socket buffers, and tables that
// the kernel has not freed yet. `make tenants` measures less than 30 MiB.
const memorySlack = 40 << 20

// TestMemory checks that the memory limit covers the sum of docs/limits.md: the heap up to GOMEMLIMIT, the tables of all pods,
// the tables that may come before others go, the tables in flight, and the slack.
func TestMemory(t *testing.T) {
	c := agentContainer(t)
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	if i < 0 {
		t.Fatal("GOMEMLIMIT is not set")
	}
	// Go writes MiB where Kubernetes writes Mi.
	goLimit, err := resource.ParseQuantity(strings.TrimSuffix(c.Env[i].Value, "B"))
	if err != nil {
		t.Fatalf("GOMEMLIMIT is %q: %v", c.Env[i].Value, err)
	}
	limits := policy.DefaultLimits()
	budget := reconciler.BudgetOf(&limits)
	if budget.Pod > reconciler.InFlightMemory {
		t.Errorf("the table of a pod may have %d bytes, and %d are in flight", budget.Pod, reconciler.InFlightMemory)
	}
	sum := goLimit.Value() + int64(budget.Node) + reconciler.MemoryReserve + reconciler.InFlightMemory + memorySlack
	if limit := c.Resources.Limits.Memory(); sum > limit.Value() {
		t.Errorf("GOMEMLIMIT %s, tables of %d MiB, a reserve of %d MiB, %d MiB in flight and a slack of %d MiB are %d MiB, more than the memory limit %s",
			&goLimit, budget.Node>>20, reconciler.MemoryReserve>>20, reconciler.InFlightMemory>>20, memorySlack>>20, sum>>20, limit)
	}
}
