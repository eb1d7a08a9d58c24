package manifests

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestMemory: GOMEMLIMIT leaves at least a fifth of the memory limit to the kernel's memory, which counts as the agent's.
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
	if limit := c.Resources.Limits.Memory(); goLimit.Value() > limit.Value()/5*4 {
		t.Errorf("GOMEMLIMIT is %s, the memory limit is %s", &goLimit, limit)
	}
}
