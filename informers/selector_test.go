package informers_test

import (
	"net/http"
	"testing"
	"testing/synctest"
)

// The agent asks for no pods on the host's network, and for no pods that have ended. It gets all its pods from an API server that
// does not know the field of the former, too, and asks such a server only once.
func TestFieldSelector(t *testing.T) {
	const finished = "status.phase!=Succeeded,status.phase!=Failed"
	for _, isOld := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			api := newServer(t, pods)
			s := start(t, api.source(t))
			next := func(want string) *call {
				t.Helper()
				c := api.next(t, pods)
				if got := c.query("fieldSelector"); got != want {
					t.Errorf("field selector %q, want %q", got, want)
				}
				return c
			}
			want := finished + ",spec.hostNetwork=false"
			if isOld {
				next(want).answer(http.StatusBadRequest, statusOf(400, "BadRequest"))
				want = finished
			}
			c := next(want)
			c.stream("1", object(pods, "a", 1))
			s.synced(t)
			s.sink.becomes(t, "pod ns/a = ")
			c.cut()
			next(want).stream("1")
		})
	}
}
