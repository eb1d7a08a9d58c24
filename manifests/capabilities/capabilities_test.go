package capabilities

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

// Environment variables of child processes of this test binary: a process with the named capabilities only, and a process that is
// about to drop the others. Descriptor 3 of both is the network namespace of a pod.
const (
	confineVar  = "MULTI_NETWORKPOLICY_TEST_CONFINE"
	confinedVar = "MULTI_NETWORKPOLICY_TEST_CONFINED"
)

func TestMain(m *testing.M) {
	if kept, ok := os.LookupEnv(confineVar); ok {
		fail(confine(strings.Fields(kept)))
	}
	if kept, ok := os.LookupEnv(confinedVar); ok {
		fail(errors.Join(isConfined(strings.Fields(kept)), enforce("/proc/self/fd/3")))
	}
	lab.Main(m)
}

func fail(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// capabilities are the capabilities that the agent may need, and some that it does not need.
var capabilities = map[string]int{
	"NET_ADMIN": unix.CAP_NET_ADMIN, "SYS_ADMIN": unix.CAP_SYS_ADMIN, "NET_RAW": unix.CAP_NET_RAW,
	"SYS_PTRACE": unix.CAP_SYS_PTRACE, "DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
	"SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "BPF": unix.CAP_BPF,
}

// confine executes the program again as a runtime starts a container: root, with these capabilities and no way to gain more.
func confine(kept []string) error {
	runtime.LockOSThread() // capabilities belong to a thread; exec keeps the capabilities of this thread
	keep := map[int]bool{}
	var mask uint32
	for _, name := range kept {
		keep[capabilities[name]] = true
		mask |= 1 << capabilities[name] // all are below 32, except BPF, which no case keeps
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: mask, Permitted: mask, Inheritable: mask}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, confineVar+"=") })
	return unix.Exec("/proc/self/exe", os.Args, append(env, confinedVar+"="+strings.Join(kept, " ")))
}

// isConfined returns an error unless the process has exactly these capabilities.
func isConfined(kept []string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	var want uint32
	for _, name := range kept {
		want |= 1 << capabilities[name]
	}
	if data[0].Effective != want || data[0].Permitted != want || data[1] != (unix.CapUserData{}) {
		return fmt.Errorf("not confined: %+v, want %x", data, want)
	}
	return nil
}

// enforce does all kernel work of the agent: it probes the features of the kernel, and creates, changes, checks and removes a
// table in a pod, with batches of some kilobytes and of a megabyte. It tries both sizes, even if the first fails.
func enforce(netns string) error {
	features, err := engine.Probe()
	return errors.Join(err, enforceIn(netns, features))
}

func enforceIn(netns string, features engine.Features) error {
	e, err := engine.Open("default/pod", netns, engine.Options{Own: features.Owner})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for _, members := range []int{1, 20_000, 2, 0} {
		if err := e.Apply(ctx, isolation(members)); err != nil {
			return err
		}
		if _, err := e.Check(ctx); err != nil {
			return err
		}
	}
	return e.Close()
}

// isolation returns a ruleset that allows the given number of addresses; 0: no table.
func isolation(members int) engine.Ruleset {
	if members == 0 {
		return engine.Ruleset{}
	}
	var list []sets.AddrRange
	addr := netip.MustParseAddr("10.0.0.0")
	for range members {
		list = append(list, sets.Single(addr))
		addr = addr.Next().Next()
	}
	rule := func(s ...expr.Statement) engine.Rule { return engine.Rule{Statements: s} }
	return engine.NewRuleset(
		[]*engine.Set{{Name: "peers", Elements: engine.Addrs{Family: sets.V4, Addrs: sets.NewAddrs(list...)}}},
		[]*engine.Chain{
			{Name: "prerouting", Hook: engine.HookPrerouting, Rules: []engine.Rule{rule(expr.IIFName("net1"), expr.Goto("ingress"))}},
			{Name: "ingress", Rules: []engine.Rule{
				rule(expr.Established(), expr.Accept()),
				rule(expr.SourceIn(sets.V4, "peers"), expr.Accept()),
				rule(expr.Counter(), expr.Drop()),
			}},
		})
}

// TestCapabilities checks that the kernel work of the agent succeeds with the capabilities of the manifest, and fails without any
// of them.
func TestCapabilities(t *testing.T) {
	if uidMap, _ := os.ReadFile("/proc/self/uid_map"); !strings.Contains(string(uidMap), "4294967295") {
		t.Skip("SKIPPED: in a user namespace, batches of a megabyte do not fit, whatever the capabilities")
	}
	host, err := lab.ForTest(t).Host("pod")
	if err != nil {
		t.Fatal(err)
	}
	granted := grantedCapabilities(t)
	if out, err := runConfined(t, host, granted); err != nil {
		t.Errorf("with %v: %v: %s", granted, err, out)
	}
	for _, less := range granted {
		kept := slices.DeleteFunc(slices.Clone(granted), func(c string) bool { return c == less })
		out, err := runConfined(t, host, kept)
		t.Logf("without %s: %s", less, strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
		if err == nil || strings.Count(out, "operation not permitted") != 2 {
			t.Errorf("without %s: %v: %s", less, err, out)
		}
	}
}

func runConfined(t *testing.T, h *lab.Host, kept []string) (string, error) {
	t.Helper()
	netns, err := os.Open(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.ExtraFiles = []*os.File{netns}
	cmd.Env = append(os.Environ(), confineVar+"="+strings.Join(kept, " "))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// grantedCapabilities returns the capabilities that the DaemonSet of the base adds.
func grantedCapabilities(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../base/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	var granted []string
	for _, c := range d.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		if _, ok := capabilities[string(c)]; !ok {
			t.Fatalf("capability %s is not known to this test", c)
		}
		granted = append(granted, string(c))
	}
	if len(granted) == 0 {
		t.Fatal("the manifest grants no capability")
	}
	return granted
}
