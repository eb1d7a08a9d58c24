package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

// API is an API server. It serves the four kinds that the agent watches, and accepts Events.
type API struct {
	address string // host and port
	handler http.Handler
	streams bool // serves lists as initial events of watches

	// mu guards the fields below.
	mu     sync.Mutex
	server *http.Server // nil: down
	events []corev1.Event
	fault  Fault

	loopback map[string]string // see SetLoopback
}

// Fault answers a request in place of the server. It returns false for a request that the server should answer.
type Fault func(w http.ResponseWriter, r *http.Request) bool

// SetFault injects a fault into new requests, or ends the fault if f is nil. Open watches continue.
func (a *API) SetFault(f Fault) {
	// New requests see the fault at once. Watches that are open never ask for it again.
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = f
}

// faulty passes each request to the fault first, if a fault is set.
func (a *API) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		fault := a.fault
		a.mu.Unlock()
		if fault == nil || !fault(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// Refuse returns a Fault that answers every request with an API error.
func Refuse(err error) Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool { refuse(w, err); return true }
}

// NewAPI returns a running API server with the objects of files. With streams, it can send a list as the initial events of a
// watch, like Kubernetes since 1.32. Without, it refuses such a watch, like older versions.
func NewAPI(files *informers.Files, streams bool) (*API, error) {
	a := &API{address: LoopbackAddress(), streams: streams}
	source := files.Objects()
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/pods", a.resource(corev1.SchemeGroupVersion.WithKind("Pod"), source.Pods))
	mux.Handle("GET /api/v1/namespaces", a.resource(corev1.SchemeGroupVersion.WithKind("Namespace"), source.Namespaces))
	mux.Handle("GET /apis/k8s.cni.cncf.io/v1/network-attachment-definitions",
		a.resource(netv1.SchemeGroupVersion.WithKind("NetworkAttachmentDefinition"), source.NADs))
	mux.Handle("GET /apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies",
		a.resource(mnpv1.SchemeGroupVersion.WithKind("MultiNetworkPolicy"), source.Policies))
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/events", a.createEvent)
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/pods", a.namespaced(corev1.SchemeGroupVersion.WithKind("Pod"), source.Pods))
	mux.HandleFunc("GET /apis/k8s.cni.cncf.io/v1beta1/namespaces/{namespace}/multi-networkpolicies",
		a.namespaced(mnpv1.SchemeGroupVersion.WithKind("MultiNetworkPolicy"), source.Policies))
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/pods/{pod}/portforward", a.portForward)
	a.handler = a.faulty(mux)
	return a, a.Start()
}

// LoopbackAddress returns an address for a server: a random host of 127.0.0.0/8, and a port that the kernel gives to no
// connection. So nobody else uses it, before the server starts and while it is down.
func LoopbackAddress() string {
	return fmt.Sprintf("127.%d.%d.%d:8080", rand.IntN(256), rand.IntN(256), 1+rand.IntN(254))
}

// Config returns the configuration of a client.
func (a *API) Config() *rest.Config { return &rest.Config{Host: a.URL()} }

// URL returns the URL of the server. It stays the same over Stop and Start.
func (a *API) URL() string { return "http://" + a.address }

// Start starts the server again after Stop.
func (a *API) Start() error {
	// After Stop, a process that another test has just forked has a copy of the old listener for a moment.
	l, err := net.Listen("tcp", a.address)
	for limit := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
		l, err = net.Listen("tcp", a.address)
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = &http.Server{Handler: a.handler}
	go a.server.Serve(l) //nolint:errcheck // it ends with Stop
	return nil
}

// Stop closes all connections. The kernel refuses new connections.
func (a *API) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server != nil {
		a.server.Close() //nolint:errcheck // the server is stopped in any case
		a.server = nil
	}
}

// Events returns all Events that clients have created.
func (a *API) Events() []corev1.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]corev1.Event(nil), a.events...)
}

// resource returns the handler for lists and watches of a kind.
func (a *API) resource(gvk schema.GroupVersionKind, lw toolscache.ListerWatcher) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		initial := q.Get("sendInitialEvents") == "true"
		switch {
		case q.Get("watch") == "":
			a.list(w, gvk, lw)
		// An API server before WatchList answers so, and reflectors then list.
		case initial && !a.streams:
			refuse(w, apierrors.NewInvalid(gvk.GroupKind(), "", nil))
		default:
			a.watch(r.Context(), w, gvk, lw, q.Get("resourceVersion"), initial)
		}
	}
}

// list answers a list with all objects in a single page.
func (a *API) list(w http.ResponseWriter, gvk schema.GroupVersionKind, lw toolscache.ListerWatcher) {
	items, version, err := listed(lw, gvk)
	if err != nil {
		refuse(w, apierrors.NewInternalError(err))
		return
	}
	respond(w, http.StatusOK, map[string]any{
		"kind": gvk.Kind + "List", "apiVersion": gvk.GroupVersion().String(),
		"metadata": map[string]string{"resourceVersion": version},
		"items":    items,
	})
}

// listed returns the objects with their kind, and the version of the list.
func listed(lw toolscache.ListerWatcher, gvk schema.GroupVersionKind) ([]runtime.Object, string, error) {
	list, err := toolscache.ToListerWithContext(lw).ListWithContext(context.Background(), metav1.ListOptions{})
	if err != nil {
		return nil, "", err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, "", err
	}
	for _, o := range items {
		// A list has its kind once, but each event of a watch has its object's kind.
		o.GetObjectKind().SetGroupVersionKind(gvk)
	}
	m, err := meta.ListAccessor(list)
	return items, m.GetResourceVersion(), err
}

// watch sends the changes after a version until the client is gone. With initial, it sends all objects first, and then a
// bookmark.
func (a *API) watch(
	ctx context.Context, w http.ResponseWriter, gvk schema.GroupVersionKind, lw toolscache.ListerWatcher, version string,
	initial bool,
) {
	var items []runtime.Object
	if initial {
		var err error
		if items, version, err = listed(lw, gvk); err != nil {
			refuse(w, apierrors.NewInternalError(err))
			return
		}
	}
	// The store replays the changes since the version of the list, so none is lost in between.
	changes, err := toolscache.ToWatcherWithContext(lw).WatchWithContext(ctx, metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		refuse(w, err)
		return
	}
	defer changes.Stop()
	w.Header().Set("Content-Type", "application/json")
	// Each event is sent at once, as a line of JSON.
	send := func(t watch.EventType, o any) {
		data, err := json.Marshal(map[string]any{"type": t, "object": o})
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "%s\n", data) //nolint:errcheck // if the client is gone, the context ends
		w.(http.Flusher).Flush()
	}
	for _, o := range items {
		send(watch.Added, o)
	}
	if initial {
		send(watch.Bookmark, map[string]any{
			"kind": gvk.Kind, "apiVersion": gvk.GroupVersion().String(),
			"metadata": map[string]any{
				"resourceVersion": version, "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			},
		})
	}
	// The client sees the start of the watch by the headers, even without an event.
	w.(http.Flusher).Flush()
	for {
		select {
		case e, ok := <-changes.ResultChan():
			if !ok {
				return
			}
			if e.Type != watch.Error {
				e.Object.GetObjectKind().SetGroupVersionKind(gvk)
			}
			send(e.Type, e.Object)
		case <-ctx.Done():
			return
		}
	}
}

// createEvent stores an Event, or answers AlreadyExists as an API server does for a name that is taken.
func (a *API) createEvent(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	var e corev1.Event // in JSON or protobuf
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &e); err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, other := range a.events {
		if other.Namespace == e.Namespace && other.Name == e.Name {
			refuse(w, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "events"}, e.Name))
			return
		}
	}
	a.events = append(a.events, e)
	e.APIVersion, e.Kind = "v1", "Event"
	respond(w, http.StatusCreated, e)
}

// refuse answers with an API error.
func refuse(w http.ResponseWriter, err error) {
	status := apierrors.NewInternalError(err).Status()
	if s, ok := err.(apierrors.APIStatus); ok { //nolint:errorlint // it is made here or by a store, never wrapped
		status = s.Status()
	}
	status.APIVersion, status.Kind = "v1", "Status"
	respond(w, int(status.Code), status)
}

// respond writes an answer as JSON.
func respond(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		panic(http.ErrAbortHandler)
	}
}
