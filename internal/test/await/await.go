package await

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

// That waits until a condition holds, 30 seconds at most. It fails the test with the description then. It calls the
// condition from the goroutine of the test, about every 2 ms.
func That(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// NoError calls try until it returns no error or the context ends. what describes the condition, for the error.
func NoError(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("never: %s: %w", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log keeps the lines that are logged at verbosity 0. The zero value is an empty log. It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	lines []string
}

// Logger returns a logger that writes to the log.
func (l *Log) Logger() logr.Logger {
	return funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, args)
	}, funcr.Options{})
}

// With returns the lines that contain all parts.
func (l *Log) With(parts ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			found = append(found, line)
		}
	}
	return found
}
