package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/agents"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
)

const (
	// MaxNodes bounds the nodes that are followed at the same time. Each takes a connection through the API server.
	MaxNodes = 100
	// An agent that goes away is tried again after minPause, and after twice the pause each time, up to maxPause.
	minPause, maxPause = time.Second, 30 * time.Second
)

// relook is the time after which the nodes are looked up again, for pods that moved and nodes that came.
var relook = 15 * time.Second

// Question selects packets, and the nodes whose agents are followed: Node, or else the node of the pod of the filter, or else the nodes
// with pods of the namespace of the filter, or else all nodes.
type Question struct {
	Agents *agents.Client
	Node   string
	Filter drops.Filter
}

// Follow calls show with each packet that the agents report, until the context ends, and note with each agent that goes away or comes
// back, without a line end. It never calls them at the same time. It returns nil when the context ends, or the first error of show, or the
// error of the first look at the API server.
func Follow(ctx context.Context, q Question, show func(drops.Drop) error, note func(string)) error {
	nodes, err := q.nodes(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	f := &follower{Question: q, show: show, note: note, stop: stop, ends: map[string]context.CancelFunc{}}
	defer f.wait.Wait()
	defer stop(nil)
	f.start(ctx, nodes)
	again := time.NewTicker(relook)
	defer again.Stop()
	for asked := true; ; {
		select {
		case <-ctx.Done():
			var output *outputError
			if errors.As(context.Cause(ctx), &output) {
				return output.error
			}
			return nil
		case <-again.C:
		}
		switch nodes, err := q.nodes(ctx); {
		case err == nil:
			f.start(ctx, nodes)
			asked = true
		case asked && ctx.Err() == nil:
			asked = false
			f.say("the nodes cannot be looked up, retrying: %v", err)
		}
	}
}

// outputError is an error of show, which ends all followers.
type outputError struct{ error }

// follower follows the agents of nodes.
type follower struct {
	Question
	show func(drops.Drop) error
	note func(string)
	stop context.CancelCauseFunc
	ends map[string]context.CancelFunc // by node that is followed
	all  int                           // nodes that the question selects, as of the last note
	wait sync.WaitGroup
	// answering is the number of nodes whose agent is followed at the moment.
	answering atomic.Int32
	mu        sync.Mutex // held while show or note run
}

func (f *follower) say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(fmt.Sprintf(format, args...))
}

// start follows the first MaxNodes of the nodes, which are sorted, and no others. It returns when the agents of new nodes have answered or
// failed for the first time.
func (f *follower) start(ctx context.Context, nodes []string) {
	all := len(nodes)
	nodes = nodes[:min(all, MaxNodes)]
	wanted, first := map[string]bool{}, sync.WaitGroup{}
	for _, node := range nodes {
		wanted[node] = true
		if f.ends[node] != nil {
			continue
		}
		of, end := context.WithCancel(ctx)
		f.ends[node] = end
		first.Add(1)
		f.wait.Go(func() { f.node(of, node, sync.OnceFunc(first.Done)) })
	}
	for node, end := range f.ends {
		if !wanted[node] {
			end()
			delete(f.ends, node)
		}
	}
	first.Wait()
	if all != f.all && ctx.Err() == nil {
		f.all = all
		text := fmt.Sprintf("following the agents of %d of %d nodes", f.answering.Load(), len(nodes))
		if all > len(nodes) {
			text += fmt.Sprintf("; there are %d: --node, --namespace or --pod selects others", all)
		}
		f.say("%s", text)
	}
}

// node follows the agent of a node until the context ends. It calls tried when the agent has answered or failed for the first time.
func (f *follower) node(ctx context.Context, node string, tried func()) {
	defer tried()
	pause, gone := minPause, false
	for {
		answers := false
		err := f.agent(ctx, node, func() {
			if gone {
				f.say("node %s: following the agent again", node)
			}
			pause, gone, answers = minPause, false, true
			f.answering.Add(1)
			tried()
		})
		if answers {
			f.answering.Add(-1)
		}
		if ctx.Err() != nil {
			return
		}
		if !gone {
			f.say("node %s, retrying: %v", node, err)
		}
		gone = true
		tried()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// agent follows the agent that now runs on a node, until it ends.
func (f *follower) agent(ctx context.Context, node string, started func()) error {
	look, cancel := context.WithTimeout(ctx, maxPause)
	defer cancel()
	found, err := f.Agents.OnNodes(look, []string{node})
	agent, ok := found[node]
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("no pod of the agent is on the node, in namespace %s", f.Agents.Namespace)
	case agent.Problem != "":
		return errors.New(agent.Problem)
	}
	err = drops.Follow(ctx, f.Agents.Transport(agent.Name), f.Agents.Address(), f.Filter, drops.Handler{
		Started: started,
		Show: func(d drops.Drop) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			err := f.show(d)
			if err != nil {
				f.stop(&outputError{err})
			}
			return err
		},
		Lost: func(n int) error {
			f.say("node %s: %d packets are missing here: this command was too slow", node, n)
			return nil
		},
	})
	return fmt.Errorf("agent %s: %w", agent.Name, err)
}
