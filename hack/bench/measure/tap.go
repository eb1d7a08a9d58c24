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
type tap struct {
	server *http.Server
	url    string

	mu   sync.Mutex
	told []time.Time
}

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
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:      transport,
		FlushInterval:  -1, // at once
		ModifyResponse: t.note,
	}
	t.server = &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go t.server.Serve(l) //nolint:errcheck // close ends it
	return t, nil
}

func (t *tap) note(r *http.Response) error {
	if strings.HasSuffix(r.Request.URL.Path, "/pods") && r.Request.URL.Query().Get("watch") != "" {
		r.Body = &notedBody{r.Body, t}
	}
	return nil
}

type notedBody struct {
	io.ReadCloser
	tap *tap
}

func (b *notedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	now := time.Now()
	b.tap.mu.Lock()
	defer b.tap.mu.Unlock()
	b.tap.told = append(b.tap.told, now)
	return n, err
}

// firstSince returns the time of the first event after start.
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
