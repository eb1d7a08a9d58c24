package informers_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// TestCore checks the requests of the client, and that it tells apart the errors of the API server on which callers depend.
func TestCore(t *testing.T) {
	var request, accept, format, body string
	status, answer := http.StatusOK, `{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}, "spec": {"taints": [{"key": "k"}]}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		request, accept, format, body = r.Method+" "+r.URL.RequestURI(), r.Header.Get("Accept"), r.Header.Get("Content-Type"), string(data)
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	client := func(contentType string) *informers.Core {
		t.Helper()
		c, err := informers.NewCore(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: contentType}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	core := client("")
	asked := func(want string) {
		t.Helper()
		if request != want {
			t.Errorf("asked %s, want %s", request, want)
		}
	}

	node, err := core.Node(t.Context(), "n")
	if err != nil || node.Name != "n" || len(node.Spec.Taints) != 1 {
		t.Errorf("node %+v, %v", node, err)
	}
	asked("GET /api/v1/nodes/n")
	if !strings.HasPrefix(accept, runtime.ContentTypeProtobuf) || !strings.Contains(accept, runtime.ContentTypeJSON) {
		t.Errorf("accepts %q", accept)
	}

	const patch = `[{"op": "remove", "path": "/spec/taints/0"}]`
	if err := core.PatchNode(t.Context(), "n", []byte(patch)); err != nil {
		t.Error(err)
	}
	asked("PATCH /api/v1/nodes/n")
	if format != "application/json-patch+json" || body != patch {
		t.Errorf("%s: %s", format, body)
	}

	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "e"}, Reason: "Invalid"}
	answer = `{"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}}`
	if err := core.CreateEvent(t.Context(), event); err != nil {
		t.Error(err)
	}
	asked("POST /api/v1/namespaces/ns/events")
	if format != runtime.ContentTypeProtobuf || !strings.HasPrefix(body, "k8s\x00") {
		t.Errorf("%s: %q", format, body)
	}
	if err := client(runtime.ContentTypeJSON).CreateEvent(t.Context(), event); err != nil {
		t.Error(err)
	}
	if !strings.Contains(body, `"reason":"Invalid"`) {
		t.Errorf("not JSON, as the config says: %q", body)
	}

	for code, is := range map[int]func(error) bool{
		http.StatusConflict: apierrors.IsAlreadyExists, http.StatusUnprocessableEntity: apierrors.IsInvalid, http.StatusForbidden: apierrors.IsForbidden,
	} {
		reasons := map[int]metav1.StatusReason{
			http.StatusConflict: metav1.StatusReasonAlreadyExists, http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
			http.StatusForbidden: metav1.StatusReasonForbidden,
		}
		status, answer = code, fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d}`, reasons[code], code)
		if err := core.CreateEvent(t.Context(), event); !is(err) {
			t.Errorf("%d is %v", code, err)
		}
	}
}
