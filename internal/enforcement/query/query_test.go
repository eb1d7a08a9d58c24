package query

import (
	"bufio"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
)

// TestMerge compares answers of an agent with the objects of the API server.
func TestMerge(t *testing.T) {
	p := &policy.Policy{Key: cache.Key{Namespace: "ns", Name: "p"}, UID: "p", Version: "10"}
	web := selectedPod{PodID: cache.PodID{Key: cache.Key{Namespace: "ns", Name: "web"}, UID: "web"}, node: "n", policies: []*policy.Policy{p}}
	since := time.Unix(1, 0)
	said := func(state enforcement.State, uid types.UID, version string) []enforcement.Policy {
		return []enforcement.Policy{
			{Name: "p", UID: uid, Version: version, State: state, Since: &since},
			{Name: "unasked", State: enforcement.NotEnforced},
		}
	}
	pod := func(name, uid string, policies []enforcement.Policy) enforcement.Pod {
		return enforcement.Pod{Namespace: "ns", Name: name, UID: types.UID(uid), Policies: policies}
	}
	for _, tc := range []struct {
		name     string
		notReady string
		pods     []enforcement.Pod
		want     []string
	}{
		{"the same version", "", []enforcement.Pod{pod("web", "web", said(enforcement.Enforced, "p", "10"))}, []string{"web Enforced"}},
		{"a newer version", "", []enforcement.Pod{pod("web", "web", said(enforcement.Enforced, "p", "11"))}, []string{"web Enforced"}},
		{"an older version", "", []enforcement.Pod{pod("web", "web", said(enforcement.Enforced, "p", "9"))}, []string{"web NotEnforced outdated"}},
		{"an older version without effect", "", []enforcement.Pod{pod("web", "web", said(enforcement.NoEffect, "p", "9"))}, []string{"web NotEnforced outdated"}},
		{"an earlier policy of the name", "", []enforcement.Pod{pod("web", "web", said(enforcement.Enforced, "q", "10"))}, []string{"web NotEnforced outdated"}},
		{"no such policy", "", []enforcement.Pod{pod("web", "web", nil)}, []string{"web NotEnforced outdated"}},
		{"no such pod", "", nil, []string{"web Unknown unknown_pod"}},
		{"an earlier pod of the name", "", []enforcement.Pod{pod("web", "old", said(enforcement.Enforced, "p", "10"))}, []string{"web Enforced", "web Unknown unknown_pod"}},
		{
			"a pod that the API server did not list", "",
			[]enforcement.Pod{pod("web", "web", said(enforcement.Enforced, "p", "10")), pod("new", "new", said(enforcement.NotEnforced, "p", "10"))},
			[]string{"new NotEnforced", "web Enforced"},
		},
		{"not ready, and enforced", "starting", []enforcement.Pod{pod("web", "web", said(enforcement.Enforced, "p", "10"))}, []string{"web Enforced"}},
		{"not ready", "starting", nil, []string{"web Unknown agent_not_ready unknown_pod"}},
	} {
		a := &asker{policies: map[cache.Key]*policy.Policy{p.Key: p}}
		var got []string
		for _, row := range a.merge("n", &answer{Header: enforcement.Header{NotReady: tc.notReady}, pods: tc.pods}, []selectedPod{web}) {
			words := []string{row.Pod, string(row.State)}
			for _, r := range row.Reasons {
				words = append(words, r.Reason)
			}
			got = append(got, strings.Join(words, " "))
		}
		slices.Sort(got)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if isOlder("b", "b") || !isOlder("a", "b") || !isOlder("b", "a") || isOlder("100", "99") || !isOlder("99", "100") {
		t.Error("isOlder")
	}
}

// stream is an agent that answers with a text.
type stream struct {
	sent   strings.Builder
	answer string
}

// RoundTrip implements http.RoundTripper.
func (s *stream) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := request.Write(&s.sent); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(strings.NewReader(s.answer)), request)
}

// TestAsk reads answers that are no answers.
func TestAsk(t *testing.T) {
	for text, want := range map[string]string{
		"200 OK\r\n\r\n" + `{"node":"n"}` + "\n" + `{"name":"a"}` + "\n" + `{"pods":1}` + "\n": "",
		"200 OK\r\n\r\n" + `{"node":"n"}` + "\n" + `{"name":"a"}` + "\n":                       "cut off after 1 pods",
		"200 OK\r\n\r\n":                      "read the answer",
		"404 Not Found\r\n\r\n":               "a version without this question",
		"503 Service Unavailable\r\n\r\nbusy": "status 503 Service Unavailable",
		"":                                    "malformed HTTP",
	} {
		s := &stream{answer: "HTTP/1.1 " + text}
		a, err := ask(t.Context(), s, "127.0.0.1:10349", map[string][]string{"namespace": {"a&b"}})
		switch {
		case want == "" && (err != nil || a.Node != "n" || len(a.pods) != 1 || a.pods[0].Name != "a"):
			t.Errorf("%q: %v, %+v", text, err, a)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if sent := s.sent.String(); !strings.HasPrefix(sent, http.MethodGet+" /enforcement?namespace=a%26b HTTP/1.1\r\n") {
			t.Errorf("sent %q", sent)
		}
	}
}

// TestTable: a message from a node cannot move the cursor of a terminal.
func TestTable(t *testing.T) {
	since := time.Now().Add(-90 * time.Second)
	r := &Report{Rows: []Row{
		{State: enforcement.NotEnforced, Namespace: "ns", Policy: "p", Pod: "a", Node: "n", Reasons: []enforcement.Reason{
			{Reason: "kernel_error", Message: "x\x1b[2Jy\nz"}, {Reason: "not_enforceable", Interface: "net1", Message: "hidden"},
		}},
		{State: enforcement.Enforced, Namespace: "ns", Policy: "p", Pod: "b", Node: "n", Since: &since},
	}, Summary: Summary{Policies: 1, Pods: 2, Nodes: 1}}
	r.count()
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	want := `STATE        POLICY  POD  NODE  SINCE  REASON
NotEnforced  ns/p    a    n     -      kernel_error: x [2Jy z; not_enforceable on net1: hidden
Enforced     ns/p    b    n     90s    -
1 policy, 2 pods on 1 node: 1 enforced, 1 not enforced, 0 unknown, 0 without effect
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
