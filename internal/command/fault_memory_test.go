package command

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
)

// largestWriteVar limits the size of a write in bytes for an agent of a test. A larger write fails with ENOMEM, like a large
// batch when the kernel has no memory for it.
const largestWriteVar = "MULTI_NETWORKPOLICY_TEST_LARGEST_WRITE"

// refuseWrites installs a seccomp(2) filter that refuses large writes in all threads of this process.
func refuseWrites(larger uint32) error {
	const (
		nr   = 0           // offset in struct seccomp_data
		size = 16 + 2*8    // offset of the third argument, low half first
		sync = 1           // SECCOMP_FILTER_FLAG_TSYNC
		mode = 1           // SECCOMP_SET_MODE_FILTER
		fail = 0x0005_0000 // SECCOMP_RET_ERRNO
		pass = 0x7fff_0000 // SECCOMP_RET_ALLOW
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_WRITE, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: size},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: larger, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: fail | uint32(unix.ENOMEM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: pass},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, mode, sync, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	return nil
}

// blocksPolicy allows many blocks to reach the pod late.
func blocksPolicy(blocks int) string {
	var list strings.Builder
	for i := range blocks {
		fmt.Fprintf(&list, "{ipBlock: {cidr: 10.%d.%d.%d/32}}, ", 100+i>>15, i>>7&255, i<<1&255)
	}
	return fmt.Sprintf(`
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {namespace: ns, name: late, uid: late,
  annotations: {k8s.v1.cni.cncf.io/policy-for: net}}, spec: {podSelector: {matchLabels: {app: late}}, ingress: [{from: [%s]}]}}
`, list.String())
}

// The kernel has no memory for the batch of a pod. The other pods stay enforced and follow changes, the log and a metric show the
// failure, and the agent recovers when a batch fits.
func TestKernelWithoutMemory(t *testing.T) {
	t.Setenv(largestWriteVar, "100000")
	r := newFaultRig(t)
	verdict := r.late(t, "server", "late")
	r.Load(node.Cluster + node.Policy + podOn("late", "10.9.0.4") + blocksPolicy(6_000))
	r.agent.says("ENOMEM")
	r.Stays("enforced while the kernel refuses", true, false)
	if r.metric(t, "multi_networkpolicy_sync_failures_total") == 0 {
		t.Error("no metric shows the failure")
	}
	r.Load(closedWorld + podOn("late", "10.9.0.4") + blocksPolicy(6_000))
	r.Becomes("another pod's change", false, false)
	r.Load(closedWorld + podOn("late", "10.9.0.4") + blocksPolicy(60))
	await.That(t, "the pod is enforced", func() bool { return verdict() != lab.Allowed })
	r.agent.end(syscall.SIGTERM)
}

// The agent dies at its memory limit. Its tables stay in force, and the next agent takes over.
func TestMemoryLimit(t *testing.T) {
	r := newFaultRig(t)
	r.limitMemory(t, 4<<20)
	var world strings.Builder
	world.WriteString(node.Cluster + node.Policy)
	for i := range 6_000 {
		world.WriteString(podOn(fmt.Sprintf("pod-%d", i), fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&255, i&255)))
	}
	r.Load(world.String())
	select {
	case <-r.agent.exited:
	case <-time.After(time.Minute):
		t.Fatal("the agent does not reach the limit")
	}
	log := r.agent.logged()
	isContained := func(text string) bool { return strings.Contains(log, text) }
	// The last allocation may be for the heap, or for the stack of a thread.
	if !slices.ContainsFunc([]string{"out of memory", "cannot allocate memory", "pthread_create failed", "failed to create new OS thread"}, isContained) {
		t.Errorf("the agent ended by something else: %s\n%.2000s", r.agent.cmd.ProcessState, log)
	}
	r.Stays("enforced without an agent", true, false)
	r.Load(closedWorld)
	r.agent = startProcess(t, r.Node)
	r.Becomes("enforced by the next agent", false, false)
	r.agent.end(syscall.SIGTERM)
}

// limitMemory limits the number of bytes that the agent may allocate in addition to its current memory.
func (r *faultRig) limitMemory(t *testing.T, more uint64) {
	t.Helper()
	pid := r.agent.cmd.Process.Pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmData:")
	kilobytes, err := strconv.ParseUint(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: kilobytes<<10 + more, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// disposableVar is set in a disposable virtual machine, where a test may change the clock.
const disposableVar = "DISPOSABLE_MACHINE"

// The clock of the node jumps, forward and back.
func TestClockJump(t *testing.T) {
	if os.Getenv(disposableVar) == "" {
		t.Skip("SKIPPED: this test sets the clock of the machine, so it runs in a virtual machine only: go run ./hack/kernels -run TestClockJump ./internal/command")
	}
	r := newFaultRig(t)
	jump := func(by time.Duration) {
		t.Helper()
		at := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
		if err := unix.Settimeofday(&at); err != nil {
			t.Fatal(err)
		}
	}
	worlds := map[bool]string{true: node.Cluster + node.Policy, false: closedWorld}
	friend := true
	for _, by := range []time.Duration{30 * 24 * time.Hour, -60 * 24 * time.Hour, 30 * 24 * time.Hour} {
		jump(by)
		r.Stays(fmt.Sprintf("enforced after a jump by %s", by), friend, false)
		friend = !friend
		r.Load(worlds[friend])
		start := time.Now()
		r.Becomes("a change after the jump", friend, false)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("a change took %s after a jump by %s", took, by)
		}
	}
	r.agent.end(syscall.SIGTERM)
}
