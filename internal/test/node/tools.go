package node

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

// Get returns the status code and the body of an HTTP answer. Without an answer, it returns 0 and the text of the error.
func Get(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// Log keeps the log lines of an agent at verbosity 0 and 1. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Logger returns a logger that writes to the log.
func (l *Log) Logger() logr.Logger {
	return funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.buf.WriteString(args + "\n")
	}, funcr.Options{Verbosity: 1})
}

// Take returns the last lines, at most the given number, and clears the log.
func (l *Log) Take(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := bytes.SplitAfter(slices.Clone(l.buf.Bytes()), []byte("\n"))
	l.buf.Reset()
	return string(bytes.Join(all[max(0, len(all)-lines):], nil))
}
