package explain

import (
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/model"
)

// TestMatrixWorlds compares the matrix of random worlds with the answer for each pair of pods and each port. The two answers come
// different ways: the matrix sweeps over all ports at once, and Reaches follows a packet through the rules.
func TestMatrixWorlds(t *testing.T) {
	allowed, denied := 0, 0
	for range 60 {
		seed := rand.Uint64N(1 << 40)
		a, d := matrixWorld(t, seed)
		if allowed, denied = allowed+a, denied+d; t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if allowed == 0 || denied == 0 {
		t.Errorf("%d allowed and %d denied packets prove nothing", allowed, denied)
	}
}

func matrixWorld(t *testing.T, seed uint64) (allowed, denied int) {
	t.Helper()
	w, state := model.NewWorld(seed), model.Objects{}
	for range 40 {
		state.Put(w.Object())
	}
	c := cache.New(testOptions())
	play(c, state.Sorted())
	settle(c)
	var pods []cache.Key
	for _, obj := range state.Sorted() {
		if pod, ok := obj.(*corev1.Pod); ok {
			pods = append(pods, cache.Key{Namespace: pod.Namespace, Name: pod.Name})
		}
	}
	type port struct {
		protocol uint8
		number   uint16
	}
	ports := map[port]bool{}
	for _, p := range model.Probes() {
		if p.Port != 0 {
			ports[port{p.Proto, p.Port}] = true
		}
	}
	for _, cell := range Matrix(c, pods, cache.Key{}) {
		if cell.Unenforced {
			continue // the matrix has no verdict on such ports
		}
		for p := range ports {
			r, err := Reaches(c, ReachQuery{
				From: model.KeyOf(cell.From), To: model.KeyOf(cell.To), Network: model.KeyOf(cell.Network), Protocol: p.protocol, Port: p.number,
			})
			if err != nil {
				t.Fatal(err)
			}
			is := cell.Allows(p.protocol, p.number)
			if is != (r.Verdict == Allowed) {
				t.Errorf("%s -> %s on %s, %d/%d: the matrix allows it: %t; by packet: %s", cell.From, cell.To, cell.Network, p.number, p.protocol, is, r.Verdict)
			}
			if is {
				allowed++
			} else {
				denied++
			}
		}
	}
	return allowed, denied
}
