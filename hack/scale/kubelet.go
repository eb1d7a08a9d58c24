package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
	testcluster "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/cluster"
)

// kubelets serves port-forwards to the agents of all nodes, and answers for these agents.
type kubelets struct {
	server *httptest.Server

	mu   sync.Mutex
	pods map[string]types.UID // the selected pod of each node, by the name of the node
}

func newKubelets() *kubelets {
	k := &kubelets{pods: map[string]types.UID{}}
	k.server = httptest.NewTLSServer(http.HandlerFunc(k.portForward))
	return k
}

// portForward serves /portForward/NAMESPACE/AGENT. The name of an agent is that of its node.
func (k *kubelets) portForward(w http.ResponseWriter, r *http.Request) {
	testcluster.ServePortForward(w, r, func(data, errors httpstream.Stream, _ <-chan bool) {
		k.answer(data, path.Base(r.URL.Path))
		errors.Close() //nolint:errcheck // the client is gone
	})
}

// answer answers an HTTP request for a node: a pod in which a policy is enforced.
func (k *kubelets) answer(s httpstream.Stream, node string) {
	defer s.Close() //nolint:errcheck // the client has the answer, or is gone
	request, err := http.ReadRequest(bufio.NewReader(s))
	if err != nil {
		return
	}
	k.mu.Lock()
	uid := k.pods[node]
	k.mu.Unlock()
	now := time.Now()
	policy := enforcement.Policy{
		Name: request.URL.Query().Get(enforcement.ParameterPolicy), UID: policyUID, Version: "999999999", State: enforcement.Enforced, Since: &now,
	}
	answer := httptest.NewRecorder()
	answer.Header().Set("Content-Type", enforcement.ContentType)
	out := json.NewEncoder(answer)
	for _, value := range []any{
		enforcement.Header{Node: node, Version: "v0.1.0", Started: now},
		enforcement.Pod{Namespace: enforcementNamespace, Name: "web-" + node, UID: uid, Policies: []enforcement.Policy{policy}},
		enforcement.End{Pods: 1},
	} {
		if err := out.Encode(value); err != nil {
			panic(fmt.Sprint("a value of the answer: ", err))
		}
	}
	answer.Result().Write(s) //nolint:errcheck // the client may be gone
}
