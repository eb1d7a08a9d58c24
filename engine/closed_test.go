package engine

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// An Engine that is used after it was closed is an error, and touches no other pod, whose socket may have its descriptor.
func TestUseAfterClose(t *testing.T) {
	network := lab.ForTest(t)
	gone, err := network.Host("gone")
	if err != nil {
		t.Fatal(err)
	}
	other, err := network.Host("other")
	if err != nil {
		t.Fatal(err)
	}
	closed, e := sameDescriptor(t, gone, other)
	defer e.Close()
	ctx := context.Background()
	if err := e.Apply(ctx, NewRuleset(nil, []*Chain{{Name: "other"}})); err != nil {
		t.Fatal(err)
	}
	before := lab.Generation(t, other)
	if err := closed.Apply(ctx, NewRuleset(nil, []*Chain{{Name: "gone"}})); !errors.Is(err, unix.EBADF) {
		t.Errorf("applied after close: %v", err)
	}
	if after := lab.Generation(t, other); after != before {
		t.Errorf("the other pod's tables were changed: generation %d, and before %d", after, before)
	}
}

// sameDescriptor returns an Engine that is closed, and another Engine whose socket has the same number.
func sameDescriptor(t *testing.T, first, second *lab.Host) (closed, e *Engine) {
	t.Helper()
	for others := range 20 { // descriptors that opening takes before the socket's
		var taken []*os.File
		for range others {
			f, err := os.Open("/proc/self/stat")
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, f)
		}
		closed, err := Open("gone", first.NetNS(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		number := closed.transport.FD()
		for _, f := range taken {
			f.Close()
		}
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		if e, err = Open("other", second.NetNS(), Options{}); err != nil {
			t.Fatal(err)
		}
		if e.transport.FD() == number {
			return closed, e
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no descriptor was used again")
	return nil, nil
}
