package informers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/await"
)

// The agents of all nodes find the same fault; the API server gets one Event.
func TestEvents(t *testing.T) {
	api := newAPI(t, informers.NewFiles(), true)
	client, err := informers.NewCore(api.Config())
	if err != nil {
		t.Fatal(err)
	}
	log := &await.Log{}
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), log.Logger()))
	done := make(chan struct{})
	for _, node := range []string{"one", "two"} {
		events := informers.NewEvents(client, node)
		events.Warn(policyNamed("ns", "p"), "Invalid", "spec.x: wrong")
		events.Warn(policyNamed("ns", "p"), "Invalid", strings.Repeat("ä", 600))
		events.Warn(policyNamed("ns", node), "Invalid", "the last")
		go func() { events.Run(ctx); done <- struct{}{} }()
	}
	await.That(t, "the last Events", func() bool { return len(api.Events()) == 4 })
	cancel()
	<-done
	<-done
	all := slices.DeleteFunc(api.Events(), func(e corev1.Event) bool { return e.Message == "the last" })
	slices.SortFunc(all, func(a, b corev1.Event) int { return len(a.Message) - len(b.Message) })
	if len(all) != 2 {
		t.Fatalf("%d Events", len(all))
	}
	if e := all[0]; e.Type != corev1.EventTypeWarning || e.Reason != "Invalid" || e.Message != "spec.x: wrong" ||
		e.InvolvedObject.UID != "u" || e.InvolvedObject.Kind != informers.KindPolicy || e.Namespace != "ns" {
		t.Errorf("got %+v", e)
	}
	if lines := log.With(""); len(lines) > 0 {
		t.Errorf("logged %q", lines)
	}
}

// publisher is Events on a server whose answers the test writes.
type publisher struct {
	*informers.Events
	api *server
	log await.Log
	ctx context.Context
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{api: newServer(t, events)}
	client, err := informers.NewCore(p.api.config())
	if err != nil {
		t.Fatal(err)
	}
	p.ctx = logr.NewContext(t.Context(), p.log.Logger())
	p.Events = informers.NewEvents(client, "here")
	return p
}

// published returns the messages of the Events that the API server gets until nothing comes for a while, in order.
func (p *publisher) published(t *testing.T) (messages []string) {
	t.Helper()
	for {
		select {
		case c := <-p.api.calls[events]:
			messages = append(messages, c.event(t).Message)
			c.answer(http.StatusCreated, `{"kind":"Event","apiVersion":"v1"}`)
		case <-time.After(time.Second):
			return messages
		}
	}
}

func (c *call) event(t *testing.T) (e corev1.Event) {
	t.Helper()
	if err := json.NewDecoder(c.r.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

// Namespaces take turns: many Events of a namespace delay no other namespace.
func TestEventTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(t)
		for _, namespace := range []string{"a", "a", "a", "b", "c", "a", "b"} {
			p.Warn(policyNamed(namespace, "p"), "Invalid", namespace)
		}
		for i := range 20 {
			p.Warn(policyNamed("d", "p"), "Invalid", fmt.Sprint("d", i))
		}
		go p.Run(p.ctx)
		got, want := p.published(t), []string{"a", "b", "c", "d0", "a", "b", "d1", "a", "d2", "a", "d3"}
		if len(got) != 27 || !slices.Equal(got[:len(want)], want) {
			t.Errorf("published %q, want %q", got, want)
		}
		if p.Dropped() > 0 {
			t.Errorf("%d dropped", p.Dropped())
		}
	})
}

// The backlog of each namespace and of all together is limited, and so are the Events of an object and of a namespace over
// time.
func TestEventLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		namespaces, objects, each int // Events
		published                 int
		later                     time.Duration // 0: that is all
		then                      int           // published, of an additional Event for each object
	}{
		"an object":           {1, 1, 31, 30, 10 * time.Second, 1},
		"an object too early": {1, 1, 31, 30, 9 * time.Second, 0},
		"other objects":       {1, 2, 30, 60, 0, 0},
		"a namespace":         {1, 65, 1, 64, 0, 0},
		"all namespaces":      {50, 50, 1, 2048, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPublisher(t)
				warn := func(each int) {
					for n := range tc.namespaces {
						for o := range tc.objects {
							for e := range each {
								p.Warn(policyNamed(fmt.Sprint("ns", n), fmt.Sprint("p", o)), "Invalid", fmt.Sprint("wrong ", e))
							}
						}
					}
				}
				warn(tc.each)
				dropped := tc.namespaces*tc.objects*tc.each - tc.published
				if p.Dropped() != uint64(dropped) {
					t.Errorf("%d dropped, want %d", p.Dropped(), dropped)
				}
				before := time.Now()
				go p.Run(p.ctx)
				if n := len(p.published(t)); n != tc.published {
					t.Errorf("%d published, want %d", n, tc.published)
				}
				if tc.later == 0 {
					return
				}
				time.Sleep(time.Until(before.Add(tc.later)))
				warn(1)
				if n := len(p.published(t)); n != tc.then {
					t.Errorf("%d published later, want %d", n, tc.then)
				}
			})
		})
	}
}

// A namespace publishes so many Events at once, however fast the API server takes them.
func TestEventBudgetOfNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPublisher(t)
		go p.Run(p.ctx)
		taken := make(chan int)
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case c := <-p.api.calls[events]:
					c.answer(http.StatusCreated, `{"kind":"Event","apiVersion":"v1"}`)
					continue
				case <-time.After(time.Second):
				}
				break
			}
			taken <- n
		}()
		for i := range 250 {
			p.Warn(policyNamed("ns", fmt.Sprint("p", i)), "Invalid", "wrong")
			synctest.Wait()
		}
		if n := <-taken; n != 200 || p.Dropped() != 50 {
			t.Errorf("%d published, %d dropped", n, p.Dropped())
		}
	})
}

// Publishing an Event is retried a few times. An Event that the API server refuses is dropped at once, and the next follows.
func TestEventRetries(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []int
		dropped uint64
	}{
		"twice an error":         {[]int{500, 503, 201}, 0},
		"always an error":        {[]int{500, 500, 500, 500, 500}, 1},
		"another agent's":        {[]int{409}, 0},
		"the namespace is ended": {[]int{403}, 1},
		"invalid":                {[]int{422}, 1},
		"no namespace":           {[]int{500, 404}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			reasons := map[int]string{403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 422: "Invalid", 500: "InternalError", 503: "ServiceUnavailable"}
			synctest.Test(t, func(t *testing.T) {
				p := newPublisher(t)
				p.Warn(policyNamed("ns", "p"), "Invalid", "first")
				p.Warn(policyNamed("ns", "p"), "Invalid", "second")
				begin := time.Now()
				go p.Run(p.ctx)
				for _, code := range tc.answers {
					c := p.api.next(t, events)
					if e := c.event(t); e.Message != "first" {
						t.Errorf("published %q", e.Message)
					}
					if code == 201 {
						c.answer(code, `{"kind":"Event","apiVersion":"v1"}`)
					} else {
						c.answer(code, statusOf(code, reasons[code]))
					}
				}
				if took, want := time.Since(begin), (1<<(len(tc.answers)-1)-1)*time.Second; took != want { // 1 s, 2 s, 4 s, ...
					t.Errorf("took %s, want %s", took, want)
				}
				if got := p.published(t); !slices.Equal(got, []string{"second"}) {
					t.Errorf("then published %q", got)
				}
				if lines := p.log.With("An Event is not published"); p.Dropped() != tc.dropped || len(lines) != int(tc.dropped) {
					t.Errorf("%d dropped, logged %q", p.Dropped(), lines)
				}
			})
		})
	}
}
