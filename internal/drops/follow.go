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
)

// ErrEnded is the error of Follow when the agent ends the stream.
var ErrEnded = errors.New("the agent has ended the stream")

// Follow calls show with each packet that the agent at the address reports, until the context ends, and lost with the number of
// packets that this client was too slow for. It returns nil when the context ends.
func Follow(ctx context.Context, client *http.Client, address string, f Filter, show func(Drop) error, lost func(int) error) error {
	u := url.URL{Scheme: "http", Host: address, Path: Path, RawQuery: url.Values{"namespace": {f.Namespace}, "pod": {f.Pod}}.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // nothing more is read
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) //nolint:errcheck // the status is the error
		return fmt.Errorf("the agent answered %s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("unreadable line %q: %w", lines.Text(), err)
		}
		if l.Lost > 0 {
			err = lost(l.Lost)
		} else if l.Drop != nil {
			err = show(*l.Drop)
		}
		if err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	return ErrEnded
}
