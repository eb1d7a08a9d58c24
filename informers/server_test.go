package informers_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
)

func TestMain(m *testing.M) {
	// The last handler sleeps until a moment of the clock outside of a bubble of package synctest.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	os.Exit(m.Run())
}

// Resources of the API server.
const (
	pods     = "pods"
	nads     = "network-attachment-definitions"
	policies = "multi-networkpolicies"
	events   = "events"
)

// kindOf is the kind of the objects of a resource.
var kindOf = map[string]string{pods: "Pod", "namespaces": "Namespace", nads: informers.KindNAD, policies: informers.KindPolicy}

// server is an API server whose answers about some resources a test writes byte by byte. All other resources are empty.
// Clients reach the server over pipes, so that it works in a bubble of package synctest: no pause of a client takes time.
type server struct {
	isOld  bool                  // watches send no initial events
	calls  map[string]chan *call // by scripted resource
	conns  chan net.Conn
	closed chan struct{}
}

// call is a request that waits for the test to answer it.
type call struct {
	resource string
	r        *http.Request
	done     chan error // not nil: hang up in the middle

	mu sync.Mutex
	w  http.ResponseWriter // nil: the client is gone
}

// newServer starts a server, stopped with the test, that leaves the answers about these resources to the test.
func newServer(t *testing.T, resources ...string) *server {
	s := &server{calls: map[string]chan *call{}, conns: make(chan net.Conn), closed: make(chan struct{})}
	for _, r := range resources {
		s.calls[r] = make(chan *call)
	}
	h := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	go h.Serve(s) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { h.Close() })
	return s
}

// Accept implements net.Listener.
func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *server) Close() error { close(s.closed); return nil }

// Addr implements net.Listener.
func (s *server) Addr() net.Addr { return &net.TCPAddr{} }

func (s *server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, conn := net.Pipe()
	select {
	case s.conns <- conn:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *server) config() *rest.Config {
	c := &rest.Config{Host: "http://api", Dial: s.dial, QPS: -1}
	c.ContentType = "application/json"
	return c
}

func (s *server) source(t *testing.T) informers.Source {
	t.Helper()
	source, err := informers.FromClients(s.config(), settings)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{resource: path.Base(r.URL.Path), w: w, r: r, done: make(chan error, 1)}
	defer c.forget()
	w.Header().Set("Content-Type", "application/json")
	scripted, ok := s.calls[c.resource]
	switch {
	case ok:
		select {
		case scripted <- c:
		case <-r.Context().Done():
		}
	case c.isWatch():
		for c.stream("1"); r.Context().Err() == nil; c.bookmark("1") {
			select {
			case <-time.After(time.Minute):
			case <-r.Context().Done():
			}
		}
	default:
		c.list("1")
	}
	select {
	case err := <-c.done:
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	case <-r.Context().Done():
	}
}

// next returns the next request about a resource.
func (s *server) next(t *testing.T, resource string) *call {
	t.Helper()
	select {
	case c := <-s.calls[resource]:
		return c
	case <-time.After(time.Hour):
		t.Fatalf("nobody asks for %s", resource)
		return nil
	}
}

// serve answers until a client watches the objects of a resource from a version on, and returns the watch.
func (s *server) serve(t *testing.T, resource, version string, items ...string) *call {
	t.Helper()
	listed := false
	for range 50 {
		c := s.next(t, resource)
		switch initial := c.query("sendInitialEvents") == "true"; {
		case initial && s.isOld:
			c.answer(http.StatusUnprocessableEntity, statusOf(422, "Invalid"))
		case initial:
			c.stream(version, items...)
			return c
		case !c.isWatch():
			c.list(version, items...)
			listed = true
		case listed:
			c.bookmark(version)
			return c
		default: // a client that goes on from an earlier version
			c.answer(http.StatusGone, statusOf(410, "Expired"))
		}
	}
	t.Fatalf("no watch of %s follows a list", resource)
	return nil
}

func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }
func (c *call) isWatch() bool            { return c.query("watch") != "" }

// answer is a whole answer.
func (c *call) answer(code int, body string) {
	c.write(func(w http.ResponseWriter) {
		w.WriteHeader(code)
		io.WriteString(w, body) //nolint:errcheck // the client may be gone
	})
	c.end()
}

// list answers with a list.
func (c *call) list(version string, items ...string) {
	c.answer(http.StatusOK, listOf(c.resource, version, items...))
}

// stream begins a watch with initial events and their end.
func (c *call) stream(version string, items ...string) {
	for _, item := range items {
		c.send(event("ADDED", item))
	}
	c.bookmark(version, `"annotations":{"k8s.io/initial-events-end":"true"}`)
}

func (c *call) bookmark(version string, more ...string) {
	metadata := append([]string{fmt.Sprintf(`"resourceVersion":%q`, version)}, more...)
	c.send(event("BOOKMARK", fmt.Sprintf(`{"kind":%q,"apiVersion":"v1","metadata":{%s}}`, kindOf[c.resource], strings.Join(metadata, ","))))
}

// send is a part of an answer.
func (c *call) send(text string) {
	c.write(func(w http.ResponseWriter) {
		io.WriteString(w, text) //nolint:errcheck // the client may be gone
		w.(http.Flusher).Flush()
	})
}

func (c *call) write(f func(http.ResponseWriter)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w != nil {
		f(c.w)
	}
}

// forget lets no write come after the end of the handler.
func (c *call) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w = nil
}

func (c *call) header(name, value string) {
	c.write(func(w http.ResponseWriter) { w.Header().Set(name, value) })
}

// end completes an answer, cut breaks it off.
func (c *call) end() { c.done <- nil }
func (c *call) cut() { c.done <- net.ErrClosed }

func listOf(resource, version string, items ...string) string {
	return fmt.Sprintf(`{"kind":"%sList","apiVersion":"v1","metadata":{"resourceVersion":%q},"items":[%s]}`,
		kindOf[resource], version, strings.Join(items, ","))
}

// object is an object with a name in the namespace ns, and these further fields.
func object(resource, name string, version int, fields ...string) string {
	head := fmt.Sprintf(`"kind":%q,"apiVersion":"v1","metadata":{"namespace":"ns","name":%q,"uid":"uid-%s","resourceVersion":"%d",`+
		`"annotations":{"k8s.v1.cni.cncf.io/policy-for":"net"}}`, kindOf[resource], name, name, version)
	return "{" + strings.Join(append([]string{head}, fields...), ",") + "}"
}

func event(kind, object string) string { return fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object) }

func statusOf(code int, reason string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":%q,"code":%d,"message":"no"}`, reason, code)
}
