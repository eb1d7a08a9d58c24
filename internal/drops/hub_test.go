package drops

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve starts a Hub behind a server, and returns it with the server's address.
func serve(t *testing.T) (*Hub, string) {
	t.Helper()
	h := &Hub{}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return h, strings.TrimPrefix(server.URL, "http://")
}

// await waits until the Hub has a number of followers.
func (h *Hub) await(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		now := len(h.followers)
		h.mu.Unlock()
		if now == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d followers, want %d", now, n)
		}
	}
}

// TestSlowFollower: a follower that is too slow loses packets and learns how many; nobody waits for it.
func TestSlowFollower(t *testing.T) {
	h, address := serve(t)
	const all = backlog * 400 // far more than the buffers of the connection hold
	go func() {
		h.await(t, 1)
		for range all {
			h.Publish(Drop{Namespace: "ns", Pod: strings.Repeat("x", 200)})
		}
		h.Publish(Drop{Namespace: "other"})
		ctx, stop := context.WithCancel(t.Context())
		stop()
		h.Run(ctx)
	}()
	shown, lost := 0, 0
	err := Follow(t.Context(), http.DefaultTransport, address, Filter{Namespace: "ns"}, Handler{Show: func(Drop) error {
		if shown++; shown == 1 {
			time.Sleep(200 * time.Millisecond)
		}
		return nil
	}, Lost: func(n int) error { lost += n; return nil }})
	if !errors.Is(err, ErrEnded) {
		t.Errorf("the end: %v", err)
	}
	// Packets that were lost behind the last one shown are not told: the stream has ended.
	if lost == 0 || shown+lost > all || shown < backlog {
		t.Errorf("%d shown, %d lost of %d", shown, lost, all)
	}
}

// TestCutStream: a stream that an agent leaves unfinished is the end of the agent, like one that it ends.
func TestCutStream(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler) // closes the connection
	}))
	defer server.Close()
	err := Follow(t.Context(), http.DefaultTransport, strings.TrimPrefix(server.URL, "http://"), Filter{}, Handler{})
	if !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
}

// TestFollowers: there is a limit, a place is free again when a follower leaves, and no follower starts at a Hub that has ended.
func TestFollowers(t *testing.T) {
	h, address := serve(t)
	start := func() (stop func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Follow(ctx, http.DefaultTransport, address, Filter{}, Handler{})
		}()
		return func() error { cancel(); return <-done }
	}
	var stops []func() error
	for range maxFollowers {
		stops = append(stops, start())
	}
	h.await(t, maxFollowers)
	once := func() error {
		return Follow(t.Context(), http.DefaultTransport, address, Filter{}, Handler{})
	}
	if err := once(); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("one too many: %v", err)
	}
	for _, stop := range stops {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	h.await(t, 0)
	ctx, end := context.WithCancel(t.Context())
	end()
	h.Run(ctx)
	if err := once(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("after the end: %v", err)
	}
}

// TestSilence: an agent that sends nothing more is given up.
func TestSilence(t *testing.T) {
	defer func(before time.Duration) { maxSilence = before }(maxSilence)
	maxSilence = 200 * time.Millisecond
	_, address := serve(t)
	started := false
	err := Follow(t.Context(), http.DefaultTransport, address, Filter{}, Handler{Started: func() { started = true }})
	if !errors.Is(err, ErrSilent) || !started {
		t.Errorf("%v, started: %t", err, started)
	}
}
