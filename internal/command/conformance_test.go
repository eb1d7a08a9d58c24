package command

import (
	"errors"
	"flag"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agent"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/conformance"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/node"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

const conformanceData = "../test/conformance/testdata/"

// newPlayer returns a player and the log of its agents.
func newPlayer(t *testing.T) (*conformance.Player, *node.Log) {
	t.Helper()
	return newPlayerOf(t, plant{})
}

// newPlayerOf returns a player whose agents have a fault.
func newPlayerOf(t *testing.T, fault plant) (*conformance.Player, *node.Log) {
	t.Helper()
	log := &node.Log{}
	return &conformance.Player{
		Start: judgedAgents(log.Logger(), t.TempDir(), fault), Node: conformanceNode, Plugins: cache.DefaultNetworkPlugins(),
	}, log
}

// Cases written by hand, and random cases that failed in the past.
func TestConformanceCases(t *testing.T) {
	for _, dir := range []string{"cases", "regressions"} {
		cases, err := conformance.ReadCases(conformanceData + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				for _, need := range c.Needs {
					if !kernelHas(t, need) {
						t.Skipf("SKIPPED: this kernel lacks %s; run `go run ./hack/kernels -kernels 6.12 -run TestConformanceCases ./internal/command`", need)
					}
				}
				playCase(t, c)
			})
		}
	}
}

// kernelHas reports whether cases with a kind of devices, or with connections of SCTP, can be played.
func kernelHas(t *testing.T, need string) bool {
	t.Helper()
	switch need {
	case oracle.SCTP.String():
		return lab.HasSCTP(t)
	case conformance.Bridge:
		support, err := agent.ProbeBridge(cache.Options{})
		if err != nil {
			t.Log(err)
		}
		return support == cache.BridgeStateful
	}
	return lab.HasDevices(t, need)
}

// docs/examples.md states the effect of its policies correctly.
func TestConformanceExamples(t *testing.T) {
	cases, err := conformance.ReadPage("../../docs/examples.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) != 12 {
		t.Errorf("%d examples, not 12", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			for _, e := range c.Steps[len(c.Steps)-1].Events {
				object, ok := e.Put.(*mnpv1.MultiNetworkPolicy)
				if !ok {
					continue
				}
				limits := policy.DefaultLimits()
				for _, p := range policy.Compile(policy.ObjectOf(object), &limits).Problems {
					t.Errorf("%s: %s", object.Name, p)
				}
			}
			playCase(t, c)
		})
	}
}

func playCase(t *testing.T, c conformance.Case) {
	t.Helper()
	player, log := newPlayer(t)
	result, err := player.Play(t.Context(), c)
	if err != nil {
		t.Fatalf("%v\nthe agent's log:\n%s", err, log.Take(20))
	}
	for _, f := range result.Faults {
		t.Errorf("step %d: %s", result.Step+1, f)
	}
	if result.Failed() {
		t.Logf("the agent's log:\n%s", log.Take(20))
	}
}

var (
	conformanceSeed     = flag.Uint64("conformance.seed", 0, "the only seed of the conformance test; 0: random ones")
	conformanceDuration = flag.Duration("conformance.duration", 20*time.Second, "how long the conformance test makes up cases")
	conformanceShare    = flag.Int("conformance.share", 4, "of how many packets between the ends of a random case one is sent")
	conformanceShrink   = flag.Duration("conformance.shrink", 2*time.Minute, "how long a case that fails is made smaller")
)

// Random clusters with random changes.
func TestConformanceRandom(t *testing.T) {
	r := &conformanceRun{next: *conformanceSeed}
	for _, kind := range []string{conformance.VRF, conformance.Bond, conformance.Bridge, oracle.SCTP.String()} {
		if kernelHas(t, kind) {
			r.kinds = append(r.kinds, kind)
		} else {
			t.Logf("SKIPPED in part: this kernel lacks %s; run `go run ./hack/kernels -kernels 6.12 -run TestConformanceRandom ./internal/command`", kind)
		}
	}
	r.limit = time.Now().Add(*conformanceDuration)
	workers := runtime.GOMAXPROCS(0)
	if r.next == 0 {
		r.next = rand.Uint64N(1 << 40)
	} else {
		workers, r.limit = 1, time.Now() // only a single case
	}
	first, start := r.next, time.Now()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for r.play(t) {
			}
		})
	}
	running.Wait()
	took := time.Since(start)
	t.Logf("kinds of devices %v, from seed %d: %d cases, %s in %s: %.0f packets a second",
		r.kinds, first, r.cases, r.counts, took.Round(time.Millisecond), float64(r.counts.Sent)/took.Seconds())
	if r.failed != nil {
		shrink(t, *r.failed, r.only)
	}
}

// conformanceRun plays random cases in several workers, until the time is over or a case fails.
type conformanceRun struct {
	limit time.Time
	kinds []string // of devices, and "sctp"

	mu     sync.Mutex
	next   uint64 // seed
	cases  int
	counts conformance.Counts
	failed *conformance.Case // up to the step that failed
	only   []oracle.Packet
}

// play plays the next case. It returns false at the end of the run.
func (r *conformanceRun) play(t *testing.T) bool {
	r.mu.Lock()
	seed := r.next
	r.next++
	r.mu.Unlock()
	c := conformance.AddDevices(conformance.Random(seed), r.kinds)
	player, log := newPlayer(t)
	player.Share = *conformanceShare
	result, err := player.Play(t.Context(), c)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cases++
	r.counts.Add(result.Counts)
	if err != nil || result.Failed() {
		t.Errorf("-conformance.seed=%d: step %d: %v\n%s\nthe agent's log:\n%s",
			seed, result.Step+1, err, strings.Join(result.Faults, "\n"), log.Take(20))
		c.Steps = c.Steps[:min(result.Step+1, len(c.Steps))]
		r.failed, r.only = &c, result.Packets
	}
	return r.failed == nil && time.Now().Before(r.limit)
}

// shrink prints the smallest failing case that it finds.
func shrink(t *testing.T, c conformance.Case, only []oracle.Packet) {
	t.Helper()
	limit := time.Now().Add(*conformanceShrink)
	more := func() bool { return time.Now().Before(limit) && t.Context().Err() == nil }
	var last conformance.Result
	fails := func(c conformance.Case) bool {
		player, _ := newPlayer(t)
		player.Only = only
		result, err := player.Play(t.Context(), c)
		if result.Failed() || errors.Is(err, conformance.ErrFault) {
			last = result
			return true
		}
		return false
	}
	if !fails(c) {
		t.Log("it does not fail again")
		return
	}
	c = conformance.Shrink(c, fails, more)
	text, err := conformance.Format(c)
	if err != nil {
		t.Error(err)
	}
	t.Logf("the smallest case that fails, for internal/test/conformance/testdata/regressions:\n%s\n%s",
		text, strings.Join(last.Faults, "\n"))
}
