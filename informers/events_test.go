package informers_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

func compare(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The agents of all nodes find the same fault; the API server gets one Event.
func TestEvents(t *testing.T) {
	api := newAPI(t, informers.NewFiles(), true)
	client, err := kubernetes.NewForConfig(api.Config())
	if err != nil {
		t.Fatal(err)
	}
	log := &logLines{}
	ctx := logr.NewContext(t.Context(), log.logger())
	about := informers.Subject{
		APIVersion: "k8s.cni.cncf.io/v1beta1", Kind: "MultiNetworkPolicy",
		NamespacedName: types.NamespacedName{Namespace: "ns", Name: "p"}, UID: "u",
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	for _, node := range []string{"one", "two"} {
		events := informers.NewEvents(client.CoreV1(), node)
		go func() { events.Run(ctx); done <- struct{}{} }()
		events.Warn(about, "Invalid", "spec.x: wrong")
		events.Warn(about, "Invalid", strings.Repeat("ä", 600))
	}
	eventually(t, "two Events", func() bool { return len(api.Events()) == 2 })
	time.Sleep(50 * time.Millisecond) // for the second agent's
	cancel()
	<-done
	<-done
	all := api.Events()
	if len(all) != 2 {
		t.Fatalf("%d Events", len(all))
	}
	first := all[0]
	if len(first.Message) > 100 {
		first = all[1]
	}
	if first.Type != corev1.EventTypeWarning || first.Reason != "Invalid" || first.Message != "spec.x: wrong" ||
		first.InvolvedObject.UID != "u" || first.InvolvedObject.Kind != "MultiNetworkPolicy" || first.Namespace != "ns" {
		t.Errorf("got %+v", first)
	}
	if found := log.with("not published"); len(found) > 0 {
		t.Errorf("log: %q", found)
	}
}
