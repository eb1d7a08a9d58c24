package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// tap is a proxy between the agent and the API server. It records the time of each watch event of a pod before it passes the
// event on.
// The time is taken as late as possible, so the measured way starts with the bytes on their way to the agent. The
// proxy itself costs a copy of each event, in this process.
type tap struct {
	server *http.Server
	// url is where the agent finds the tap instead of the API server. The tap adds the credentials.
	url string

	// told has the times that no caller of firstSince has skipped, in order.
	mu   sync.Mutex
	told []time.Time
}

// openTap starts the proxy on a free port. The caller must close it.
func openTap(config *rest.Config) (*tap, error) {
	to, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tap{url: "http://" + l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: transport,
		// The agent gets each event at once, without waiting for more.
		FlushInterval:  -1, // at once
		ModifyResponse: t.note,
	}
	t.server = &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go t.server.Serve(l) //nolint:errcheck // close ends it
	return t, nil
}

// note follows the answer if it is a watch of pods. Lists and watches of other kinds pass without a note.
func (t *tap) note(r *http.Response) error {
	if strings.HasSuffix(r.Request.URL.Path, "/pods") && r.Request.URL.Query().Get("watch") != "" {
		r.Body = &notedBody{r.Body, t}
	}
	return nil
}

// notedBody notes the time of each read of a watch. A long event may take several reads; the first read counts.
type notedBody struct {
	io.ReadCloser
	tap *tap
}

func (b *notedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	// The agent has not got these bytes yet.
	now := time.Now()
	b.tap.mu.Lock()
	defer b.tap.mu.Unlock()
	b.tap.told = append(b.tap.told, now)
	return n, err
}

// firstSince returns the time of the first event after start.
// It forgets all earlier events, so start must not go back from call to call.
func (t *tap) firstSince(start time.Time) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.told) > 0 && t.told[0].Before(start) {
		t.told = t.told[1:]
	}
	if len(t.told) == 0 {
		return time.Time{}, false
	}
	return t.told[0], true
}

func (t *tap) close() error { return t.server.Close() }
