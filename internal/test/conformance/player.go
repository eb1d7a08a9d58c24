package conformance

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/oracle"
)

// Agent is the agent under test. A test wraps its agent in this interface, so the package does not depend on the
// agent's assembly. The methods are called from a single goroutine.
type Agent interface {
	// SetSandbox and DeleteSandbox stand in for the container runtime, which announces sandboxes and reports their
	// ends.
	SetSandbox(s Sandbox)
	DeleteSandbox(uid types.UID)
	// Explain returns the agent's own explanation of a packet: whether the rules of its receiver let it pass, or with
	// egress the rules of its sender, and why.
	Explain(egress bool, p oracle.Packet) (allowed bool, why string, err error)
	// Settled reports whether the agent knows exactly these versions of objects and has no work left.
	Settled(versions map[oracle.Ref]string) bool
	// Stop ends the agent, and returns when it has ended. Its rules stay in the kernel.
	Stop()
}

// StartAgent starts an agent with the sandboxes that run already, as a runtime reports them to an agent that connects.
type StartAgent func(objects informers.Objects, sandboxes []Sandbox, flags oracle.Flags) (Agent, error)

// Player plays cases. Playing a case does not change the Player.
type Player struct {
	// Start is called at the start of a case, and again for each event that starts an agent.
	Start   StartAgent
	Node    string          // the agent's node: it enforces policies only for pods of this node
	Plugins []string        // the agent's --network-plugins
	Only    []oracle.Packet // unless empty, only these packets are sent: to repeat a fault quickly
	Share   int             // unless 0, one of Share packets is sent, always the same packets of a case: for random cases, which are many
}

// Result is the outcome of a case.
// Without faults, all comparisons of the case agreed.
type Result struct {
	Counts
	Step    int             // the step that failed, from 0; valid if there are faults
	Faults  []string        // messages
	Packets []oracle.Packet // the packets with a wrong verdict, for [Player.Only]
}

// Counts says how much was compared. A test logs it: a case that compares nothing proves nothing.
type Counts struct {
	Points  int // quiet points
	Sent    int // packets; a packet that is sent again counts once
	Egress  int // packets that the sender's rules are to drop
	Ingress int // of the others, packets that the receiver's rules are to drop
	Live    int // packets of connections that were open
	Stopped int // of the packets of open connections, packets that are to be dropped
}

// Add adds the counts of another case.
func (c *Counts) Add(d Counts) {
	c.Points += d.Points
	c.Sent += d.Sent
	c.Egress += d.Egress
	c.Ingress += d.Ingress
	c.Live += d.Live
	c.Stopped += d.Stopped
}

// count counts a probe by its expected verdict.
func (c *Counts) count(p *Probe) {
	c.Sent++
	if p.flow != nil {
		c.Live++
		if !p.allowed() {
			c.Stopped++
		}
		return
	}
	switch {
	case !p.Egress.Allowed:
		c.Egress++
	case !p.Ingress.Allowed:
		c.Ingress++
	}
}

// String returns the counts in a sentence, for a log.
func (c Counts) String() string {
	return fmt.Sprintf("%d quiet points, %d packets compared (%d to be dropped by the sender's rules, %d by the receiver's; %d of open connections, %d to be dropped)",
		c.Points, c.Sent, c.Egress, c.Ingress, c.Live, c.Stopped)
}

// Failed reports whether there are faults.
func (r Result) Failed() bool { return len(r.Faults) > 0 }

const (
	patience  = 20 * time.Second // how long an agent may take to settle
	pollEvery = 100 * time.Microsecond
	someOf    = 8 // faults that a result lists; more faults of one step have mostly the same cause
)

// Play plays a case until its first fault. A fault of the agent that prevents the play ([ErrFault]) and a failure of
// the play itself are errors; the result then has only the comparisons before.
// Everything that the case made is removed before it returns.
func (p *Player) Play(ctx context.Context, c Case) (result Result, err error) {
	// The ports are part of the fabric, because each host listens on them from the beginning.
	fabric, err := NewFabric(portsOf(c))
	if err != nil {
		return Result{}, err
	}
	run := &play{
		Player: p, fabric: fabric, server: NewServer(), state: oracle.State{}, sandboxes: map[types.UID]Sandbox{},
		pods: map[spot]bool{},
		// The sample depends on the name of the case only: a case sends the same packets again when it is repeated.
		sample: rand.New(rand.NewPCG(0, crc64.Checksum([]byte(c.Name), crc64.MakeTable(crc64.ECMA)))),
		oracle: &oracle.Oracle{Node: p.Node, Plugins: p.Plugins, Flags: c.Flags},
	}
	defer func() {
		run.stop()
		err = errors.Join(err, fabric.Close())
	}()
	for _, o := range c.Outsiders {
		if err := fabric.AddOutsider(o.Wire, o.Addr); err != nil {
			return Result{}, err
		}
	}
	run.oracle.Observe(run.state)
	if err := run.start(); err != nil {
		return Result{}, err
	}
	for i, step := range c.Steps {
		faults, err := run.step(ctx, step)
		if err != nil {
			return run.result, fmt.Errorf("step %d: %w", i+1, err)
		}
		if len(faults) > 0 {
			run.result.Step, run.result.Faults = i, faults
			break
		}
	}
	return run.result, nil
}

// portsOf returns the ports that are probed in a case: the ports that are always probed, and the ports of its
// expectations.
func portsOf(c Case) []uint16 {
	ports := slices.Clone(somePorts)
	for _, s := range c.Steps {
		for _, e := range s.Expect {
			for _, service := range e.Services {
				if service.proto != oracle.ICMP && !slices.Contains(ports, service.port) {
					ports = append(ports, service.port)
				}
			}
		}
	}
	return ports
}

// play is the state of a case that is being played.
type play struct {
	*Player
	fabric *Fabric
	server *Server
	oracle *oracle.Oracle
	agent  Agent // nil: no agent runs
	// The objects as the API server has them. The Oracle's state is older while no agent runs.
	state     oracle.State
	sandboxes map[types.UID]Sandbox
	pods      map[spot]bool // addresses that pods have or had, for forged packets
	forgotten bool          // entries of connection tracking were deleted, and the agent may not have noticed
	foreign   bool          // a table that another agent left is in force: the Oracle cannot judge
	sample    *rand.Rand
	result    Result
}

// spot is an address on a wire.
// It is comparable, so that it can be the key of a map.
type spot struct {
	wire string
	addr netip.Addr
}

// start starts an agent with the sandboxes that exist now.
func (r *play) start() error {
	sandboxes := make([]Sandbox, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		sandboxes = append(sandboxes, s)
	}
	var err error
	r.agent, err = r.Start(r.server.Objects(), sandboxes, r.oracle.Flags)
	return err
}

// stop ends the agent, if an agent runs.
// Its rules stay.
func (r *play) stop() {
	if r.agent != nil {
		r.agent.Stop()
		r.agent = nil
	}
}

// step plays a step: its events in a burst, then the comparison once the agent is settled.
// It returns messages about wrong verdicts.
func (r *play) step(ctx context.Context, s Step) ([]string, error) {
	for _, e := range s.Events {
		if err := r.happen(ctx, e); err != nil {
			return nil, err
		}
	}
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	if s.Quiet {
		return nil, nil
	}
	return r.compare(s.Expect)
}

// happen carries out an event, in the order that a real cluster has: the kernel changes before the API server announces
// a pod, and after the API server announces its end.
func (r *play) happen(ctx context.Context, e Event) error {
	switch {
	case e.Settle:
		return r.settle(ctx)
	case e.Stop:
		// An agent that stops in the middle of its work leaves rules that the Oracle cannot know.
		if err := r.settle(ctx); err != nil {
			return err
		}
		r.stop()
		return nil
	case e.Start:
		// The new agent lists all objects, and so knows the missed changes at once. It replaces tables of other agents.
		r.oracle.Forget(r.state)
		r.foreign = false
		r.stop()
		return r.start()
	case e.Open != nil:
		return r.open(ctx, *e.Open)
	case e.Forget:
		r.forgotten = true
		return r.fabric.forgetConnections()
	case e.Table != nil:
		r.foreign = true
		return r.fabric.leaveTable(*e.Table)
	}
	r.state = e.applyTo(r.state)
	if r.agent != nil { // a stopped agent sees nothing, and its rules stay as they are
		r.oracle.Observe(r.state)
	}
	if pod, ok := e.Put.(*corev1.Pod); ok {
		if err := r.putPod(pod); err != nil {
			return err
		}
	}
	if e.Put != nil {
		r.server.Put(e.Put)
	} else {
		r.server.Delete(*e.Gone)
	}
	return r.leave()
}

// leave takes pods off the wires that have ended or were deleted, and reports the ends of their sandboxes.
func (r *play) leave() error {
	left, err := r.fabric.Leave(r.state)
	for _, uid := range left {
		delete(r.sandboxes, uid)
		if r.agent != nil {
			r.agent.DeleteSandbox(uid)
		}
	}
	return err
}

// putPod makes the kernel's side of a pod.
// It comes before the API server knows the pod.
func (r *play) putPod(pod *corev1.Pod) error {
	for _, l := range annotatedLinks(pod) {
		for _, a := range l.Addrs {
			r.pods[spot{l.Wire, a}] = true
		}
	}
	// Another UID means another pod: the earlier pod is gone.
	if err := r.leave(); err != nil {
		return err
	}
	s, ok, err := r.fabric.PutPod(pod)
	if err != nil || !ok {
		return err
	}
	// A runtime announces a sandbox once, when the pod starts.
	if _, known := r.sandboxes[s.UID]; !known && r.agent != nil {
		r.agent.SetSandbox(s)
	}
	r.sandboxes[s.UID] = s
	return nil
}

// settle waits until the agent, if an agent runs, has done all of its work.
func (r *play) settle(ctx context.Context) error {
	if r.agent == nil {
		return nil
	}
	versions := r.server.Versions()
	for start := time.Now(); !r.agent.Settled(versions); time.Sleep(pollEvery) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%w: it has not done its work within %s", ErrFault, patience)
		}
	}
	if r.forgotten {
		return r.awaitEntries(ctx)
	}
	return nil
}

// ErrFault marks an error that is the agent's fault, but is not a verdict: an agent that does not settle, or a
// connection that cannot be opened although it is allowed.
var ErrFault = errors.New("the agent is at fault")

// compare sends all packets of the moment and returns a message for each wrong fate. The fate must agree with the
// Oracle and with the lines of the case.
func (r *play) compare(expect []Expectation) ([]string, error) {
	live, err := r.compareFlows()
	if err != nil {
		return nil, err
	}
	probes := r.probes(expect)
	for _, p := range probes {
		if !r.foreign {
			p.Egress, p.Ingress = r.oracle.Judge(p.Packet())
		}
	}
	if err := r.fabric.Send(probes); err != nil {
		return nil, err
	}
	probes = append(live, probes...)
	var faults []string
	if !r.foreign {
		if faults, err = r.judge(probes); err != nil {
			return nil, err
		}
	}
	for _, e := range expect {
		faults = append(faults, e.Faults(probes)...)
	}
	if more := len(faults) - someOf; more > 0 {
		faults = append(faults[:someOf], fmt.Sprintf("and %d more", more))
	}
	return faults, nil
}

// judge returns messages for the verdicts of the kernel, of the agent's explanations, and for tables that are missing
// or needless.
// The probes must have been sent.
func (r *play) judge(probes []*Probe) ([]string, error) {
	faults, err := r.tables()
	if err != nil {
		return nil, err
	}
	for _, p := range probes {
		r.result.count(p)
		f := p.Fault()
		if f == "" && r.agent != nil && p.flow == nil {
			f = r.misexplained(p)
		}
		if f != "" && p.flow != nil {
			faults = append(faults, fmt.Sprintf("%s, open, reply %t, the other end sends first %t: %s", p.Packet(), p.reply, p.flow.otherFirst, f))
			continue
		}
		if f != "" {
			faults = append(faults, fmt.Sprintf("%s: %s", p.Packet(), f))
			r.result.Packets = append(r.result.Packets, p.Packet())
		}
	}
	r.result.Points++
	return faults, nil
}

// misexplained returns a message if the agent's explanation of a packet differs from the Oracle. The kernel has agreed
// with the Oracle before.
func (r *play) misexplained(p *Probe) string {
	for _, side := range []struct {
		egress bool
		self   oracle.Endpoint
		ruling oracle.Ruling
	}{{true, p.From.Endpoint(), p.Egress}, {false, p.To.Endpoint(), p.Ingress}} {
		if !side.self.IsPod() || !r.oracle.Enforced(side.self.Pod) {
			continue
		}
		if !side.egress && p.From.host == p.To.host { // a pod's own packet could by its address be another pod's
			continue
		}
		allowed, why, err := r.agent.Explain(side.egress, p.Packet())
		if err != nil || allowed != side.ruling.Allowed {
			return fmt.Sprintf("egress %v: the explanation is allowed: %v (%s, %v), but it is allowed: %v (%s)",
				side.egress, allowed, why, err, side.ruling.Allowed, side.ruling.Why)
		}
	}
	return ""
}

// tables returns messages for pods that have no table although a policy isolates them, and for pods that have a table
// although no policy does.
func (r *play) tables() ([]string, error) {
	var faults []string
	for _, h := range r.fabric.present() {
		if h == r.fabric.outside || !r.oracle.Enforced(h.key) {
			continue
		}
		has, err := h.hasTable()
		if err != nil {
			return nil, err
		}
		if want := r.oracle.Isolated(h.key); has != want {
			faults = append(faults, fmt.Sprintf("%s has a table: %v, but is isolated: %v", h.Name, has, want))
		}
	}
	return faults, nil
}
