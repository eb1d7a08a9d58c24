package nfnl

import (
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// dial opens a Conn in a new network namespace.
func dial(t *testing.T) *Conn {
	t.Helper()
	host, err := lab.ForTest(t).Bare("pod")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(host.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
