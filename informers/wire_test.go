package informers

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/randfill"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
)

// wireSettings are those of an agent on node-0.
var wireSettings = Settings{Node: "node-0", Limits: new(policy.DefaultLimits())}

// randomPod returns a pod with random content in all fields. Random strings are no names that the agent reads, so the fields that it
// reads also get values that matter.
func randomPod(r *rand.Rand) *corev1.Pod {
	oneOf := func(values ...string) string { return values[r.Intn(len(values))] }
	pod := &corev1.Pod{}
	randfill.New().RandSource(r).NilChance(0.3).NumElements(0, 3).Funcs(
		func(p *corev1.ContainerPort, c randfill.Continue) {
			*p = corev1.ContainerPort{
				Name: oneOf("http", "dns", ""), Protocol: corev1.Protocol(oneOf("TCP", "UDP", "", "none")), ContainerPort: r.Int31n(70000), HostIP: c.String(9),
			}
		},
		func(p *corev1.ContainerRestartPolicy, _ randfill.Continue) {
			*p = corev1.ContainerRestartPolicy(oneOf("Always", "Never"))
		},
		func(m *metav1.FieldsV1, c randfill.Continue) { m.SetRawString(c.String(200)) },
	).Fill(pod)
	for _, name := range []string{
		cache.StatusAnnotation, cache.LegacyStatusAnnotation, cache.NetworksAnnotation, cache.DropLogAnnotation, TraceAnnotation,
		corev1.MirrorPodAnnotationKey, metav1.InitialEventsAnnotationKey,
	} {
		if value := oneOf("", "true"); value != "" {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, name, value)
		}
	}
	for i := range pod.ManagedFields {
		if oneOf("", "known") != "" {
			pod.ManagedFields[i].Time = new(metav1.Unix(r.Int63n(1<<35), 0))
		}
	}
	pod.Spec.NodeName = oneOf("node-0", "node-1", "")
	pod.Status.Phase = corev1.PodPhase(oneOf("Running", "Failed", "Succeeded", ""))
	return pod
}

// TestUnmarshalPod compares unmarshalPod with the generated code: for any pod, both lead to the same record.
func TestUnmarshalPod(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	seen := map[string]int{}
	for range 500 {
		pod := randomPod(r)
		data, err := pod.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var whole corev1.Pod
		if err := whole.Unmarshal(data); err != nil {
			t.Fatal(err)
		}
		lean, err := unmarshalPod(data)
		if err != nil {
			t.Fatal(err)
		}
		got, want := wireSettings.podRecordOf(lean), wireSettings.podRecordOf(&whole)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("(-generated +lean):\n%s", cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })))
		}
		for name, has := range map[string]bool{
			"labels": len(want.pod.Labels) > 0, "ports": len(want.pod.Ports) > 0, "status": want.pod.Status != "", "outside": want.pod.Outside != "",
			"trace": want.pod.trace != nil, "runtime class": want.pod.RuntimeClass != "", "mirrors": want.pod.Mirrors != "", "end": want.end,
			"a change": want.changed.After(whole.CreationTimestamp.Time), "a creation": want.pod.Created != 0,
		} {
			if has {
				seen[name]++
			}
		}
	}
	if len(seen) != 10 {
		t.Errorf("the pods have only %v", seen)
	}
}

// TestUnmarshalCutPod: no part of a pod's bytes makes unmarshalPod panic, and neither do changed bytes.
func TestUnmarshalCutPod(t *testing.T) {
	data, err := wirePod().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for i := range data {
		if _, err := unmarshalPod(data[:i]); err != nil {
			failed++
		}
		changed := bytes.Clone(data)
		changed[i] ^= 0xff
		unmarshalPod(changed) //nolint:errcheck // some changes are in strings
	}
	if failed < len(data)*9/10 {
		t.Errorf("%d of %d parts are no error", len(data)-failed, len(data))
	}
}

// TestPodsInProtobuf watches pods in protobuf, as an API server sends them: pods, a bookmark, an error.
func TestPodsInProtobuf(t *testing.T) {
	pod := wirePod()
	bookmark := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "9"}}
	status := apierrors.NewResourceExpired("too old").ErrStatus
	w := watchFrames(t, bytes.NewReader(bytes.Join([][]byte{
		frameOf(t, watch.Modified, "v1", "Pod", pod), frameOf(t, watch.Bookmark, "v1", "Pod", bookmark), frameOf(t, watch.Error, "v1", "Status", &status),
	}, nil)))
	defer w.Stop()
	for _, want := range []any{wireSettings.podRecordOf(pod), wireSettings.podRecordOf(bookmark), &status} {
		select {
		case got := <-w.ResultChan():
			if s, ok := got.Object.(*metav1.Status); ok {
				s.TypeMeta = metav1.TypeMeta{}
			}
			if !reflect.DeepEqual(got.Object, want) {
				t.Errorf("%s %+v, want %+v", got.Type, got.Object, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
	}
}

// BenchmarkPodFrame measures an event of a pod that no local policy concerns, from the bytes of the watch to the cache. A real
// pod has more containers and statuses than this pod of 2.5 kB.
func BenchmarkPodFrame(b *testing.B) {
	w := watchFrames(b, &endless{frame: frameOf(b, watch.Modified, "v1", "Pod", wirePod())})
	defer w.Stop()
	sink := cache.New(cache.Options{Node: wireSettings.Node, Limits: *wireSettings.Limits})
	b.ReportAllocs()
	for b.Loop() {
		event := <-w.ResultChan()
		r, ok := event.Object.(*record)
		if !ok {
			b.Fatalf("%+v", event)
		}
		sink.UpsertPod(r.pod.Pod)
	}
}

// wirePod returns a pod with the fields of a usual pod.
func wirePod() *corev1.Pod {
	at := metav1.Unix(1_700_000_000, 0)
	fields := metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{".":{}},"f:labels":{".":{},"f:app":{}}},"f:status":{"f:conditions":` +
		`{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{}},"k:{\"type\":\"Initialized\"}":{".":{},"f:status":{}}},"f:podIP":{}}}`)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-5d4f8c7b9-x2x7q", UID: "5f0c3e1a-7d42-4b8e-9a6b-000000000001", ResourceVersion: "8", CreationTimestamp: at,
			Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9", "tier": "backend"},
			Annotations: map[string]string{
				cache.NetworksAnnotation: "default/net",
				cache.StatusAnnotation: `[{"name": "cluster", "interface": "eth0", "ips": ["192.168.1.2"], "default": true, "dns": {}}, ` +
					`{"name": "default/net", "interface": "net1", "ips": ["10.1.2.3"], "mac": "02:00:00:00:00:01", "dns": {}}]`,
			},
		},
		Spec: corev1.PodSpec{NodeName: "node-1", ServiceAccountName: "default"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "192.168.1.2", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for i, name := range []string{"app", "proxy", "log"} {
		pod.ManagedFields = append(pod.ManagedFields, metav1.ManagedFieldsEntry{Manager: name, Time: &at, FieldsType: "FieldsV1", FieldsV1: fields})
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: name, Image: "registry.example.com/team/application:v1.2.3", Command: []string{"/bin/app", "--port", "8080"},
			Env:   []corev1.EnvVar{{Name: "NODE", Value: "node-1"}},
			Ports: []corev1.ContainerPort{{Name: name, ContainerPort: int32(8080 + i)}},
		})
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, Ready: true, ContainerID: fmt.Sprintf("containerd://%064d", i)})
	}
	return pod
}

// frameOf returns an event of a protobuf watch: its length, and a WatchEvent with the object in an envelope.
func frameOf(t testing.TB, kind watch.EventType, apiVersion, name string, object interface{ Marshal() ([]byte, error) }) []byte {
	must := func(data []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	envelope := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: name}, Raw: must(object.Marshal())}
	event := metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: append([]byte("k8s\x00"), must(envelope.Marshal())...)}}
	data := must(event.Marshal())
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// watchFrames returns the watch of a source of pods that answers with the frames.
func watchFrames(t testing.TB, frames io.Reader) watch.Interface {
	t.Helper()
	source, err := FromClients(&rest.Config{Host: "http://api", Transport: answer{frames}}, wireSettings)
	if err != nil {
		t.Fatal(err)
	}
	w, err := toolscache.ToWatcherWithContext(source.pods).WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// answer answers each request with the bytes of a protobuf watch.
type answer struct{ body io.Reader }

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	header := http.Header{"Content-Type": {"application/vnd.kubernetes.protobuf;stream=watch"}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(a.body), Request: r}, nil
}

// endless repeats a frame.
type endless struct{ frame, rest []byte }

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.frame
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}
