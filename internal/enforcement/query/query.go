package query

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"k8s.io/client-go/rest"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache/policy"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agents"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/enforcement"
)

// Question is a question about policies, by the rights of the user of Config.
type Question struct {
	Config         *rest.Config
	Namespace      string // empty: all namespaces
	Policy         string // empty: all policies of the namespace
	AgentNamespace string
	AgentPort      uint16        // port on loopback of each node
	Timeout        time.Duration // for the answer of an agent
}

// NotFoundError is the error about a policy that does not exist.
type NotFoundError struct{ Policy cache.Key }

// Error implements error.
func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no policy %s", e.Policy) }

// Ask answers the question. An agent that gives no answer is no error: the report names it.
func Ask(ctx context.Context, q Question) (*Report, error) {
	client, err := agents.NewClient(q.Config, q.AgentNamespace, q.AgentPort)
	if err != nil {
		return nil, err
	}
	policies, err := readPolicies(ctx, client.Core, q.Namespace, q.Policy)
	if err != nil {
		return nil, err
	}
	if q.Policy != "" && len(policies) == 0 {
		return nil, &NotFoundError{cache.Key{Namespace: q.Namespace, Name: q.Policy}}
	}
	pods, err := podsOf(ctx, client.Core, policies)
	if err != nil {
		return nil, err
	}
	a := &asker{Question: q, client: client, policies: map[cache.Key]*policy.Policy{}, byNode: map[string][]selectedPod{}}
	for _, p := range policies {
		a.policies[p.Key] = p
	}
	for _, pod := range pods {
		a.byNode[pod.node] = append(a.byNode[pod.node], pod)
	}
	return a.report(ctx, pods)
}

// PolicyNames returns the names of the policies of a namespace, sorted.
func PolicyNames(ctx context.Context, config *rest.Config, namespace string) ([]string, error) {
	core, err := informers.NewCore(config)
	if err != nil {
		return nil, err
	}
	policies, err := readPolicies(ctx, core, namespace, "")
	names := make([]string, 0, len(policies))
	for _, p := range policies {
		names = append(names, p.Key.Name)
	}
	return names, err
}

// podsOf returns the pods that any of the policies selects.
func podsOf(ctx context.Context, core *informers.Core, policies []*policy.Policy) ([]selectedPod, error) {
	byNamespace := map[string][]*policy.Policy{}
	for _, p := range policies {
		byNamespace[p.Key.Namespace] = append(byNamespace[p.Key.Namespace], p)
	}
	namespaces := slices.Sorted(maps.Keys(byNamespace))
	lists, errs := make([][]selectedPod, len(namespaces)), make([]error, len(namespaces))
	agents.Parallel(len(namespaces), func(i int) {
		lists[i], errs[i] = selectedPods(ctx, core, namespaces[i], byNamespace[namespaces[i]])
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(lists...), nil
}

// asker asks the agents.
type asker struct {
	Question
	client   *agents.Client
	policies map[cache.Key]*policy.Policy
	byNode   map[string][]selectedPod // the empty node: pods that are not scheduled
}

// report asks the agents of all nodes with selected pods, and merges their answers.
func (a *asker) report(ctx context.Context, pods []selectedPod) (*Report, error) {
	nodes := slices.Sorted(maps.Keys(a.byNode))
	nodes = slices.DeleteFunc(nodes, func(name string) bool { return name == "" })
	found, err := a.client.OnNodes(ctx, nodes)
	if err != nil {
		return nil, err
	}
	r := &Report{Rows: []Row{}, Nodes: make([]Node, len(nodes))}
	rows := make([][]Row, len(nodes))
	agents.Parallel(len(nodes), func(i int) { r.Nodes[i], rows[i] = a.node(ctx, nodes[i], found) })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r.Rows = append(r.Rows, slices.Concat(rows...)...)
	for _, pod := range a.byNode[""] {
		for _, p := range pod.policies {
			r.Rows = append(r.Rows, newRow(p.Key, pod.Name, "").because(enforcement.NoEffect, ReasonUnscheduled, "the pod is on no node yet"))
		}
	}
	a.addUnused(r)
	r.sort()
	r.Summary.Policies, r.Summary.Pods, r.Summary.Nodes = len(a.policies), len(pods), len(nodes)
	r.count()
	return r, nil
}

// addUnused adds a row for each policy that selects no pod.
func (a *asker) addUnused(r *Report) {
	used := map[cache.Key]bool{}
	for i := range r.Rows {
		used[cache.Key{Namespace: r.Rows[i].Namespace, Name: r.Rows[i].Policy}] = true
	}
	for key := range a.policies {
		if !used[key] {
			r.Rows = append(r.Rows, newRow(key, "", "").because(enforcement.NoEffect, ReasonNoPods, "the policy selects no pod"))
		}
	}
}

// node asks the agent of a node, and returns a row for each policy of each selected pod there.
func (a *asker) node(ctx context.Context, name string, running map[string]agents.Pod) (Node, []Row) {
	agent, found := running[name]
	node := Node{Name: name, Agent: agent.Name}
	pods := a.byNode[name]
	all := func(reason, message string) (Node, []Row) {
		node.Error = message
		var rows []Row
		for _, pod := range pods {
			for _, p := range pod.policies {
				rows = append(rows, newRow(p.Key, pod.Name, name).because(enforcement.Unknown, reason, message))
			}
		}
		return node, rows
	}
	switch {
	case !found:
		return all(ReasonNoAgent, "no pod of the agent is on the node, in namespace "+a.AgentNamespace)
	case agent.Problem != "":
		return all(ReasonNoAgent, agent.Problem)
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	answer, err := ask(ctx, a.client.Transport(agent.Name), a.client.Address(), a.parameters(pods))
	if err != nil {
		return all(ReasonUnreachable, fmt.Sprintf("agent %s: %v", agent.Name, err))
	}
	node.Version, node.Started = answer.Version, &answer.Started
	if answer.NotReady != "" {
		node.Error = "the agent is not ready: " + answer.NotReady
	}
	return node, a.merge(name, answer, pods)
}

// parameters returns the question for a node: about a single namespace if the pods are of one.
func (a *asker) parameters(pods []selectedPod) url.Values {
	v := url.Values{}
	namespace := pods[0].Namespace
	if slices.ContainsFunc(pods, func(p selectedPod) bool { return p.Namespace != namespace }) {
		return v
	}
	v.Set(enforcement.ParameterNamespace, namespace)
	if a.Policy != "" {
		v.Set(enforcement.ParameterPolicy, a.Policy)
	}
	return v
}

// merge compares the answer of an agent with the pods and policies of the API server. It also returns rows for pods that only the
// agent knows.
func (a *asker) merge(node string, answer *answer, pods []selectedPod) (rows []Row) {
	add := func(r Row) {
		if answer.NotReady != "" && r.State != enforcement.Enforced {
			r = r.because(enforcement.Unknown, ReasonNotReady, "the agent is not ready: "+answer.NotReady)
		}
		rows = append(rows, r)
	}
	type pair struct {
		pod    cache.PodID
		policy string
	}
	known, states := map[cache.PodID]bool{}, map[pair]*enforcement.Policy{}
	for _, pod := range answer.pods {
		id := cache.PodID{Key: cache.Key{Namespace: pod.Namespace, Name: pod.Name}, UID: pod.UID}
		known[id] = true
		for i := range pod.Policies {
			states[pair{id, pod.Policies[i].Name}] = &pod.Policies[i]
		}
	}
	for _, pod := range pods {
		for _, p := range pod.policies {
			row, key := newRow(p.Key, pod.Name, node), pair{pod.PodID, p.Key.Name}
			switch state := states[key]; {
			case !known[pod.PodID]:
				add(row.because(enforcement.Unknown, ReasonUnknownPod, "the agent does not know the pod"))
			case state == nil:
				add(row.because(enforcement.NotEnforced, ReasonOutdated, "the agent does not know yet that the policy selects the pod"))
			default:
				add(row.with(state, p))
			}
			delete(states, key)
		}
	}
	for key, state := range states {
		if p := a.policies[cache.Key{Namespace: key.pod.Namespace, Name: key.policy}]; p != nil {
			add(newRow(p.Key, key.pod.Name, node).with(state, p))
		}
	}
	return rows
}

// with returns the row with the state that an agent reports. A state of an earlier version of the policy is not that of the policy.
func (r Row) with(state *enforcement.Policy, p *policy.Policy) Row {
	r.State, r.Since, r.Reasons = state.State, state.Since, state.Reasons
	if state.UID != p.UID || isOlder(state.Version, p.Version) {
		r.Since = nil
		return r.because(enforcement.NotEnforced, ReasonOutdated,
			fmt.Sprintf("the agent has version %s of the policy, the API server %s", state.Version, p.Version))
	}
	return r
}

// isOlder reports whether a resource version is older than another. Versions are numbers; of other texts only equality is known.
func isOlder(a, b string) bool {
	m, errA := strconv.ParseUint(a, 10, 64)
	n, errB := strconv.ParseUint(b, 10, 64)
	if errA != nil || errB != nil {
		return a != b
	}
	return m < n
}

// sort sorts the rows by state, then by policy, node and pod.
func (r *Report) sort() {
	slices.SortFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(slices.Index(enforcement.States, a.State), slices.Index(enforcement.States, b.State)),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Pod, b.Pod))
	})
}

// count counts the rows by state.
func (r *Report) count() {
	for i := range r.Rows {
		switch r.Rows[i].State {
		case enforcement.NotEnforced:
			r.Summary.NotEnforced++
		case enforcement.Unknown:
			r.Summary.Unknown++
		case enforcement.Enforced:
			r.Summary.Enforced++
		case enforcement.NoEffect:
			r.Summary.NoEffect++
		}
	}
}
