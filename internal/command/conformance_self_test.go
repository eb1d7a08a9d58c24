package command

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/labelindex"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/conformance"
)

// keptPolicies is a fault: deleted policies stay.
type keptPolicies struct{ informers.Sink }

func (keptPolicies) DeletePolicy(cache.Key) {}

// keptPods is a fault: deleted pods stay.
type keptPods struct{ informers.Sink }

func (keptPods) DeletePod(cache.Key) {}

// fixedNamespaces is a fault: changes of a namespace's labels are ignored.
type fixedNamespaces struct {
	informers.Sink
	seen map[string]bool
}

func (s fixedNamespaces) UpsertNamespace(ns cache.Namespace) {
	if !s.seen[ns.Name] {
		s.seen[ns.Name] = true
		s.Sink.UpsertNamespace(ns)
	}
}

// changed changes objects before it gives them to a Sink.
type changed struct {
	informers.Sink
	pod    func(*cache.Pod)
	nad    func(*cache.NAD)
	policy func(*policy.Policy)
}

func (s changed) UpsertPod(p cache.Pod) []policy.Problem {
	if s.pod != nil {
		s.pod(&p)
	}
	return s.Sink.UpsertPod(p)
}

func (s changed) UpsertNAD(n cache.NAD) {
	if s.nad != nil {
		s.nad(&n)
	}
	s.Sink.UpsertNAD(n)
}

func (s changed) UpsertPolicy(p *policy.Policy) {
	if s.policy != nil {
		p = new(*p)
		s.policy(p)
	}
	s.Sink.UpsertPolicy(p)
}

// The conformance test finds an agent with a fault, and the printed case is reduced to the fault.
func TestConformanceFindsFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		seed  uint64 // from which on it does not take long
		fault plant
	}{
		{"policies are kept", 6, plant{sink: func(s informers.Sink) informers.Sink { return keptPolicies{s} }}},
		{"pods are kept", 43, plant{sink: func(s informers.Sink) informers.Sink { return keptPods{s} }}},
		{"namespaces are fixed", 49, plant{sink: func(s informers.Sink) informers.Sink { return fixedNamespaces{s, map[string]bool{}} }}},
		{"definitions have no times", 13, plant{sink: func(s informers.Sink) informers.Sink {
			return changed{Sink: s, nad: func(n *cache.NAD) { n.Since = 0 }}
		}}},
		{"lists of requested networks are not read", 12, plant{sink: func(s informers.Sink) informers.Sink {
			return changed{Sink: s, pod: func(p *cache.Pod) {
				if strings.HasPrefix(p.Requested, "[") {
					p.Requested = ""
				}
			}}
		}}},
		{"long names are cut", 0, plant{sink: func(s informers.Sink) informers.Sink {
			return changed{Sink: s, policy: func(p *policy.Policy) { p.Key.Name = p.Key.Name[:min(len(p.Key.Name), 252)] }}
		}}},
		{"empty labels are lost", 4, plant{sink: func(s informers.Sink) informers.Sink {
			return changed{Sink: s, pod: func(p *cache.Pod) {
				p.Labels = slices.DeleteFunc(slices.Clone(p.Labels), func(l labelindex.Label) bool { return l.Value == "" })
			}}
		}}},
		{"connections are kept", 62, plant{options: func(o *cache.Options) { o.RevokeEstablished = false }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			player, _ := newPlayerOf(t, tt.fault)
			var found conformance.Result
			fails := func(c conformance.Case) bool {
				result, err := player.Play(t.Context(), c)
				found = result
				return err == nil && result.Failed()
			}
			seed := tt.seed
			for !fails(conformance.Random(seed)) {
				if seed++; seed == tt.seed+faultCases {
					t.Fatalf("not found by %d cases", faultCases)
				}
			}
			c := conformance.Random(seed)
			c.Steps = c.Steps[:found.Step+1]
			player.Only = found.Packets
			before, limit := c.Size(), time.Now().Add(faultShrinking)
			failsTwice := func(c conformance.Case) bool { // a case that fails once by luck is no better case
				for range 2 {
					if !fails(c) {
						return false
					}
				}
				return true
			}
			c = conformance.Shrink(c, failsTwice, func() bool { return time.Now().Before(limit) })
			t.Logf("seed %d: a case of %d events, shrunk to %d", seed, before, c.Size())
			c = writtenAndRead(t, c)
			failed := false
			for try := 0; try < 20 && !failed; try++ { // the order of two objects can decide whether a fault shows
				failed = fails(c)
			}
			if !failed {
				t.Error("the shrunk case, written and read, does not fail")
			}
			playCase(t, c)
		})
	}
}

const (
	faultCases     = 100
	faultShrinking = 5 * time.Second
)

func writtenAndRead(t *testing.T, c conformance.Case) conformance.Case {
	t.Helper()
	text, err := conformance.Format(c)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "case.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cases, err := conformance.ReadCases(file)
	if err != nil || len(cases) != 1 {
		t.Fatalf("%d cases, %v, of\n%s", len(cases), err, text)
	}
	return cases[0]
}
