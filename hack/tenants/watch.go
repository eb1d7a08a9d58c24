package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// watch follows the victim's objects as the agent does. It tells how much of the time to enforcement is the API server's.
type watch struct {
	client *client

	mu   sync.Mutex
	seen map[string]time.Duration // resource version: since clockStart
}

// newWatch watches pods and policies of the victim until the context ends.
func newWatch(ctx context.Context, c *client) *watch {
	w := &watch{client: c, seen: map[string]time.Duration{}}
	for _, resource := range []string{pods, policies} {
		go func() {
			for ctx.Err() == nil {
				w.follow(ctx, resource) //nolint:errcheck // a watch ends now and then, and starts again
				pause(ctx, 10*time.Millisecond)
			}
		}()
	}
	return w
}

// follow reads a watch until it ends.
func (w *watch) follow(ctx context.Context, resource string) error {
	url := "https://127.0.0.1:" + serverPort + pathOf(resource, victimNamespace) + "?watch=true"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", metadataOnly)
	answer, err := w.client.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it has ended
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("watch %s: %s", resource, answer.Status)
	}
	for d := json.NewDecoder(answer.Body); ; {
		var event struct {
			Object struct {
				Metadata metadata `json:"metadata"`
			} `json:"object"`
		}
		if err := d.Decode(&event); err != nil {
			return err
		}
		w.mu.Lock()
		w.seen[event.Object.Metadata.ResourceVersion] = time.Since(clockStart)
		w.mu.Unlock()
	}
}

// told returns when the watch delivered a version of an object, or the time now if it did not.
func (w *watch) told(m metadata) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.seen[m.ResourceVersion]
	if !ok {
		return time.Since(clockStart)
	}
	delete(w.seen, m.ResourceVersion)
	return at
}
