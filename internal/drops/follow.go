package drops

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Errors of Follow.
var (
	ErrEnded  = errors.New("the agent has ended the stream")
	ErrSilent = errors.New("the agent has sent nothing for too long")
)

// maxSilence is the time after which an agent that sends nothing is gone. A node that lost its power ends no connection.
var maxSilence = 3 * heartbeat

// Handler gets the content of a stream. An error of a function ends the stream.
type Handler struct {
	Started func() // called when the agent has answered; may be nil
	Show    func(Drop) error
	Lost    func(int) error // gets the number of packets that this client was too slow for
}

// Follow calls the handler with the packets that an agent reports, until the context ends. It returns nil when the context ends.
// transport reaches the agent, and address is the host and port of the request.
func Follow(ctx context.Context, transport http.RoundTripper, address string, f Filter, h Handler) error {
	stream, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxSilence, func() { cancel(ErrSilent) })
	defer silence.Stop()
	err := follow(stream, transport, address, f, h, func() { silence.Reset(maxSilence) })
	switch {
	case ctx.Err() != nil:
		return nil
	case stream.Err() != nil:
		return context.Cause(stream)
	}
	return err
}

// follow reads the stream of an agent to its end, and calls alive at each line.
func follow(ctx context.Context, transport http.RoundTripper, address string, f Filter, h Handler, alive func()) error {
	u := url.URL{Scheme: "http", Host: address, Path: Path, RawQuery: url.Values{"namespace": {f.Namespace}, "pod": {f.Pod}}.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // nothing more is read
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) //nolint:errcheck // the status is the error
		return fmt.Errorf("the agent answered %s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	if h.Started != nil {
		h.Started()
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		alive()
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("unreadable line %q: %w", lines.Text(), err)
		}
		if l.Lost > 0 {
			err = h.Lost(l.Lost)
		} else if l.Drop != nil {
			err = h.Show(*l.Drop)
		}
		if err != nil {
			return err
		}
	}
	// An agent that is killed, or has no time left to end the stream, cuts it off.
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return ErrEnded
}
