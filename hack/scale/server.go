package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// server is the API server of a cluster. It answers only watches that begin with all objects (WatchList, KEP-3157): it
// knows no lists.
type server struct {
	cluster *cluster
	http    *http.Server
	url     string
	sent    atomic.Uint64 // bytes written to all connections

	mu   sync.Mutex // guards pods and its stream
	pods *stream    // the watch of the agent, on which changes are sent; nil before the agent watches
}

// newServer starts a server on a free port of the loopback interface.
func newServer(c *cluster) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{cluster: c, url: "http://" + l.Addr().String()}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go s.http.Serve(&countingListener{l, &s.sent}) //nolint:errcheck // it ends with the process
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Query().Get("sendInitialEvents") != "true" {
		http.Error(w, "only watches with initial events", http.StatusNotFound)
		return
	}
	var err error
	switch path.Base(r.URL.Path) {
	case "pods":
		err = s.watchPods(newStream(w), r)
	case "namespaces":
		st := newStream(w)
		for i := 0; i < s.cluster.namespaces && err == nil; i++ {
			err = st.send(watch.Added, s.cluster.namespace(i))
		}
		err = st.finish(r, err, &corev1.Namespace{})
	case "network-attachment-definitions":
		err = s.watchJSON(w, r, 1, func(int) string { return nadJSON })
	case "multi-networkpolicies":
		err = s.watchJSON(w, r, s.cluster.policies, s.cluster.policyJSON)
	default:
		http.NotFound(w, r)
	}
	// The client sees a broken stream, and not an end: it must not take the objects so far for all objects.
	if err != nil && r.Context().Err() == nil {
		panic(http.ErrAbortHandler)
	}
}

// watchPods sends all pods, and leaves the stream to [server.change].
func (s *server) watchPods(st *stream, r *http.Request) (err error) {
	for i := 0; i < s.cluster.pods && err == nil; i++ {
		err = st.send(watch.Added, s.cluster.pod(i, s.cluster.app(i)))
	}
	if err == nil {
		err = st.bookmark(&corev1.Pod{})
	}
	// Only now, so that changes come behind the initial events.
	s.mu.Lock()
	s.pods = st
	s.mu.Unlock()
	if err == nil {
		<-r.Context().Done()
	}
	return err
}

// change buffers a new version of pod i for the agent. Its resource version is the time of the write, in nanoseconds since 1970: the
// agent's process computes latencies from it.
func (s *server) change(i int, app string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods.send(watch.Modified, s.cluster.pod(i, app))
}

// prepare encodes a new version of each pod from a number to another number.
func (s *server) prepare(from, to int, app string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var frames bytes.Buffer
	st := encoderTo(&frames)
	st.last = s.pods.last
	for i := from; i < to; i++ {
		if err := st.send(watch.Modified, s.cluster.pod(i, app)); err != nil {
			return nil, err
		}
	}
	s.pods.last = st.last
	return frames.Bytes(), nil
}

// write sends prepared versions.
func (s *server) write(frames []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.pods.out.Write(frames); err != nil {
		return err
	}
	return s.pods.flush()
}

// flush sends the buffered versions.
func (s *server) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods.flush()
}

// watchJSON sends n objects in JSON, and then nothing more: only pods change.
func (s *server) watchJSON(w http.ResponseWriter, r *http.Request, n int, object func(int) string) error {
	w.Header().Set("Content-Type", "application/json;stream=watch")
	for i := range n {
		if _, err := fmt.Fprintf(w, `{"type": "ADDED", "object": %s}`+"\n", object(i)); err != nil {
			return err
		}
	}
	// The bookmark with this annotation tells the reflector that the initial events are complete.
	_, err := io.WriteString(w, `{"type": "BOOKMARK", "object": {"kind": "X", "metadata": {"resourceVersion": "2", "annotations": {"`+
		metav1.InitialEventsAnnotationKey+`": "true"}}}}`+"\n")
	if err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	<-r.Context().Done()
	return nil
}

// stream is a watch in protobuf, the encoding that the agent asks for.
type stream struct {
	out     io.Writer
	frames  io.Writer // adds the length of a frame, and writes to out
	object  runtime.Encoder
	event   runtime.Encoder
	control *http.ResponseController
	last    int64 // last resource version; versions must grow
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	st := encoderTo(w)
	st.control = http.NewResponseController(w)
	return st
}

// encoderTo returns a stream that cannot be flushed.
func encoderTo(w io.Writer) *stream {
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	return &stream{
		out: w, frames: info.StreamSerializer.NewFrameWriter(w),
		object: scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion),
		event:  scheme.Codecs.EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion),
	}
}

// object is an object with metadata.
type object interface {
	runtime.Object
	metav1.Object
}

// send encodes an object and sends it as an event. The version of the object is the time, but always grows.
func (st *stream) send(typ watch.EventType, o object) error {
	st.last = max(st.last+1, time.Now().UnixNano())
	o.SetResourceVersion(strconv.FormatInt(st.last, 10))
	raw, err := runtime.Encode(st.object, o)
	if err != nil {
		return err
	}
	return st.event.Encode(&metav1.WatchEvent{Type: string(typ), Object: runtime.RawExtension{Raw: raw}}, st.frames)
}

// flush sends the buffered events at once.
func (st *stream) flush() error { return st.control.Flush() }

// bookmark marks the end of the initial events.
func (st *stream) bookmark(o object) error {
	o.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	if err := st.send(watch.Bookmark, o); err != nil {
		return err
	}
	return st.flush()
}

// finish ends the initial events unless there is an error, and then waits until the client ends the watch.
func (st *stream) finish(r *http.Request, err error, o object) error {
	if err == nil {
		err = st.bookmark(o)
	}
	if err == nil {
		<-r.Context().Done()
	}
	return err
}

// countingListener counts the bytes that its connections send.
type countingListener struct {
	net.Listener
	sent *atomic.Uint64
}

// Accept implements net.Listener.
func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &countingConn{conn, l.sent}, err
}

// countingConn is a connection of a countingListener.
type countingConn struct {
	net.Conn
	sent *atomic.Uint64
}

// Write implements net.Conn.
func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(uint64(n))
	return n, err
}
