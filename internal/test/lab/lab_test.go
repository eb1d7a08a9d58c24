package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func twoHosts(t *testing.T) (*Lab, *Host, *Host) {
	t.Helper()
	l := ForTest(t)
	hosts := make([]*Host, 2)
	for i := range hosts {
		h, err := l.Host(fmt.Sprintf("h%d", i+1),
			netip.MustParsePrefix(fmt.Sprintf("10.9.0.%d/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd00:9::%d/64", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		hosts[i] = h
	}
	return l, hosts[0], hosts[1]
}

func TestProbe(t *testing.T) {
	_, client, server := twoHosts(t)
	for _, proto := range []Protocol{TCP, UDP} {
		if err := server.Serve(t.Context(), proto, 80); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		to    string
		proto Protocol
		want  Verdict
		err   error
	}{
		{"TCP over IPv4", "10.9.0.2:80", TCP, Allowed, nil},
		{"TCP over IPv6", "[fd00:9::2]:80", TCP, Allowed, nil},
		{"UDP over IPv4", "10.9.0.2:80", UDP, Allowed, nil},
		{"UDP over IPv6", "[fd00:9::2]:80", UDP, Allowed, nil},
		{"nobody listens to TCP", "10.9.0.2:81", TCP, Failed, unix.ECONNREFUSED},
		{"nobody listens to UDP", "[fd00:9::2]:81", UDP, Failed, unix.ECONNREFUSED},
		{"nobody has the address", "10.9.0.3:80", TCP, Dropped, os.ErrDeadlineExceeded},
		{"nobody has the address, UDP", "10.9.0.3:80", UDP, Dropped, os.ErrDeadlineExceeded},
		{"no route", "192.0.2.1:80", TCP, Failed, unix.ENETUNREACH},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := Probe(t.Context(), client, netip.MustParseAddrPort(tc.to), tc.proto, 400*time.Millisecond)
			if got.Verdict != tc.want || !errors.Is(got.Err, tc.err) {
				t.Errorf("got %s, %v; want %s, %v", got.Verdict, got.Err, tc.want, tc.err)
			}
			if got.Took > 10*time.Second {
				t.Errorf("took %s", got.Took)
			}
		})
	}
}

// Many probes at once must not lose packets nor leave a thread in the wrong namespace.
func TestProbesSideBySide(t *testing.T) {
	_, client, server := twoHosts(t)
	for _, proto := range []Protocol{TCP, UDP} {
		if err := server.Serve(t.Context(), proto, 80); err != nil {
			t.Fatal(err)
		}
	}
	home := currentNetNS(t)
	var wg sync.WaitGroup
	for i := range 400 {
		to, proto := netip.MustParseAddrPort([]string{"10.9.0.2:80", "[fd00:9::2]:80"}[i%2]), []Protocol{TCP, UDP}[i/2%2]
		wg.Go(func() {
			if r := Probe(t.Context(), client, to, proto, 5*time.Second); r.Verdict != Allowed {
				t.Errorf("%s to %s: %s, %v", proto, to, r.Verdict, r.Err)
			}
		})
	}
	wg.Wait()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("threads: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil && ns != home {
			t.Errorf("%s is %s, not %s", task, ns, home)
		}
	}
}

func TestProbeIsCancelled(t *testing.T) {
	_, client, _ := twoHosts(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := Probe(ctx, client, netip.MustParseAddrPort("10.9.0.9:80"), TCP, time.Minute)
	if r.Verdict != Failed || r.Took > 5*time.Second {
		t.Errorf("got %s after %s", r.Verdict, r.Took)
	}
}

func TestHostIsolation(t *testing.T) {
	_, h1, h2 := twoHosts(t)
	home := currentNetNS(t)
	var first, second string
	if err := h1.Do(func() error {
		first = currentNetNS(t)
		return h2.Do(func() error { second = currentNetNS(t); return nil })
	}); err != nil {
		t.Fatal(err)
	}
	if first == home || second == home || first == second {
		t.Errorf("home %s, h1 %s, h2 %s", home, first, second)
	}
	if now := currentNetNS(t); now != home {
		t.Errorf("not back home: %s", now)
	}
	opened, err := netns.GetFromPath(h1.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	if !opened.Equal(h1.ns.ns) {
		t.Errorf("%s is not h1's namespace", h1.NetNS())
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	boom := errors.New("boom")
	if err := h1.Do(func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("Do hid the error: %v", err)
	}

}

func TestAttachAndDetach(t *testing.T) {
	_, h1, h2 := twoHosts(t)
	for i, h := range []*Host{h1, h2} {
		if err := h.Attach("br1", "net2", netip.MustParsePrefix(fmt.Sprintf("10.8.0.%d/24", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := h2.Serve(t.Context(), TCP, 80); err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("10.8.0.2:80")
	if r := Probe(t.Context(), h1, to, TCP, 5*time.Second); r.Verdict != Allowed {
		t.Fatalf("over net2: %s, %v", r.Verdict, r.Err)
	}
	if err := h2.Detach("net2"); err != nil {
		t.Fatal(err)
	}
	if r := Probe(t.Context(), h1, to, TCP, 100*time.Millisecond); r.Verdict != Dropped {
		t.Errorf("after net2 was detached: %s, %v", r.Verdict, r.Err)
	}
	if r := Probe(t.Context(), h1, netip.MustParseAddrPort("10.9.0.2:80"), TCP, 5*time.Second); r.Verdict != Allowed {
		t.Errorf("over net1: %s, %v", r.Verdict, r.Err)
	}
}

// A lab with connected clients closes at once, leaks no descriptor, and does not change the interfaces of the process's
// namespace.
func TestCloseLeavesNothing(t *testing.T) {
	links := func() int {
		all, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	fds := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	makeAndClose := func() {
		l, err := New()
		if err != nil {
			t.Fatal(err)
		}
		h, err := l.Host("h", netip.MustParsePrefix("10.9.0.1/24"))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Serve(t.Context(), TCP, 80); err != nil {
			t.Fatal(err)
		}
		if r := Probe(t.Context(), h, netip.MustParseAddrPort("10.9.0.1:80"), TCP, 5*time.Second); r.Verdict != Allowed {
			t.Fatalf("probe: %s, %v", r.Verdict, r.Err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	makeAndClose() // the first use makes Go's network poller open descriptors
	linksBefore, fdsBefore := links(), fds()
	makeAndClose()
	if got := links(); got != linksBefore {
		t.Errorf("%d interfaces, were %d", got, linksBefore)
	}
	if got := fds(); got > fdsBefore {
		t.Errorf("%d descriptors, were %d", got, fdsBefore)
	}
}

func currentNetNS(t *testing.T) string {
	t.Helper()
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestKernelAtLeast(t *testing.T) {
	for _, tc := range []struct {
		major, minor int
		want         bool
	}{{2, 99, true}, {5, 0, true}, {99, 0, false}} {
		if got := KernelAtLeast(t, tc.major, tc.minor); got != tc.want {
			t.Errorf("%d.%d: %t", tc.major, tc.minor, got)
		}
	}
}
