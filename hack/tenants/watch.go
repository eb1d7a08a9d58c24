package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// watch follows the objects as the agent does. It tells how much of the time to enforcement is the API server's.
type watch struct {
	client *client

	// mu guards seen
	mu   sync.Mutex
	seen map[string]time.Duration // resource version: since clockStart
}

// newWatch watches pods and policies until the context ends. The policies are those of all namespaces, whole and as JSON, as
// the agent reads them: the victim's policies come behind the policies that an attacker wrote before. Pods are whole as well for
// the agent, but in a form that costs the API server little. So the victim's pods, without their content, are enough.
func newWatch(ctx context.Context, c *client) *watch {
	w := &watch{client: c, seen: map[string]time.Duration{}}
	// The path of policies has no namespace, so it is the whole cluster's.
	for _, source := range []struct{ path, accept string }{{pathOf(pods, victimNamespace), metadataOnly}, {"/" + policies, jsonType}} {
		go func() {
			for ctx.Err() == nil {
				w.follow(ctx, source.path, source.accept) //nolint:errcheck // a watch ends now and then, and starts again
				pause(ctx, 10*time.Millisecond)
			}
		}()
	}
	return w
}

// longestEvent is more than any event of the victim has, in bytes. Longer events are an attacker's, and are not decoded.
const longestEvent = 64 << 10

// follow reads a watch until it ends.
// Events before the first watch starts are missed; told then says now.
func (w *watch) follow(ctx context.Context, path, accept string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:"+serverPort+path+"?watch=true", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", accept)
	answer, err := w.client.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it has ended
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("watch %s: %s", path, answer.Status)
	}
	// A line that does not fit into the buffer is skipped in pieces.
	in := bufio.NewReaderSize(answer.Body, longestEvent)
	for isRest := false; ; {
		line, err := in.ReadSlice('\n') // a line for each event
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			isRest = true
			continue
		case err != nil:
			return err
		case isRest:
			isRest = false
			continue
		}
		if err := w.take(line); err != nil {
			return err
		}
	}
}

// take notes when an event of the victim came.
func (w *watch) take(line []byte) error {
	now := time.Since(clockStart)
	var event struct {
		Object struct {
			Metadata struct {
				metadata
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		} `json:"object"`
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	if m := event.Object.Metadata; m.Namespace == victimNamespace {
		w.mu.Lock()
		w.seen[m.ResourceVersion] = now
		w.mu.Unlock()
	}
	return nil
}

// told returns when the watch delivered a version of an object, or the time now if it did not.
// The version is forgotten then, so each change can be asked for once.
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
