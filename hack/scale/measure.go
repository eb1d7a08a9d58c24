package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// process is an agent in a process of its own, with the server of its cluster: its heap and CPU time are the agent's alone.
type process struct {
	server  *server
	child   *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
}

// start starts a server and an agent. memory limits only the agent (GOMEMLIMIT). The caller must stop the process.
func start(c *cluster, memory string) (*process, error) {
	s, err := newServer(c)
	if err != nil {
		return nil, err
	}
	p := &process{server: s}
	if err := p.startAgent(c.local, memory); err != nil {
		return nil, errors.Join(err, s.http.Close())
	}
	return p, nil
}

func (p *process) startAgent(local int, memory string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p.child = exec.Command(self, "agent", p.server.url, strconv.Itoa(local))
	p.child.Env, p.child.Stderr = append(os.Environ(), "GOMEMLIMIT="+memory), os.Stderr
	if p.in, err = p.child.StdinPipe(); err != nil {
		return err
	}
	out, err := p.child.StdoutPipe()
	if err != nil {
		return err
	}
	p.answers = bufio.NewReader(out)
	return p.child.Start()
}

// stop ends the agent, which ends at the end of its input, and then the server.
func (p *process) stop() error {
	return errors.Join(p.in.Close(), p.child.Wait(), p.server.http.Close())
}

// ask gives the agent a command and returns its answer. The agent answers when it has seen so many events since its last answer, and
// is at rest.
func (p *process) ask(command string, events int) (s state, err error) {
	if _, err := fmt.Fprintln(p.in, command, events); err != nil {
		return s, err
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("the agent ended: %w", err)
	}
	return s, json.Unmarshal(line, &s)
}

// churn changes the labels of remote pods at a rate per second. A client or a probe ceases to be a peer, or becomes a
// peer again; other pods concern no policy.
func (s *server) churn(rate, changes int) error {
	// The seed is fixed, so that runs compare.
	random := rand.New(rand.NewPCG(1, 2))
	toggled := map[int]bool{}
	begin := time.Now()
	for i := range changes {
		// The times are absolute: a late change does not delay the changes behind it.
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		pod := s.cluster.local + random.IntN(s.cluster.pods-s.cluster.local)
		was := s.cluster.app(pod)
		now := was
		if toggled[pod] = !toggled[pod]; toggled[pod] {
			now = map[string]string{client: other, probe: other, other: "another"}[was]
		}
		if err := s.change(pod, now); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	return nil
}
