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
)

// Agent is what is judged.
type Agent interface {
	SetSandbox(s Sandbox)
	DeleteSandbox(uid types.UID)
	// Explain says what the agent would answer to who asks whether a packet passes its receiver's rules, or with egress its
	// sender's, and why.
	Explain(egress bool, p Packet) (allowed bool, why string, err error)
	// Settled says whether the agent knows just these versions of objects, and has done all of its work.
	Settled(versions map[Ref]string) bool
	// Stop returns when it has ended.
	Stop()
}

// StartAgent starts an agent that knows these sandboxes.
type StartAgent func(objects informers.Objects, sandboxes []Sandbox, flags Flags) (Agent, error)

// Player plays cases.
type Player struct {
	Start   StartAgent
	Node    string   // pods that name it are the agent's
	Plugins []string // the agent's --network-plugins
	Only    []Packet // unless empty, no others are sent
	Share   int      // unless 0, only one of so many packets is sent: always the same packets of a case
}

// Result is how a case came out.
type Result struct {
	Counts
	Step    int      // where it failed, from 0
	Faults  []string // in words
	Packets []Packet // that did not fare as they should
}

// Counts are what was compared.
type Counts struct {
	Points  int // quiet points
	Sent    int // packets, those sent again counted once
	Egress  int // packets that the sender's rules are to drop
	Ingress int // of the others, packets that the receiver's rules are to drop
	Live    int // packets of connections that were open
	Stopped int // of these, packets that are to be dropped
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

// String tells them.
func (c Counts) String() string {
	return fmt.Sprintf("%d quiet points, %d packets compared (%d to be dropped by the sender's rules, %d by the receiver's; %d of open connections, %d to be dropped)",
		c.Points, c.Sent, c.Egress, c.Ingress, c.Live, c.Stopped)
}

// Failed says whether anything came out otherwise.
func (r Result) Failed() bool { return len(r.Faults) > 0 }

const (
	patience  = 20 * time.Second
	pollEvery = 100 * time.Microsecond
	someOf    = 8 // faults that are told
)

// Play plays a case until its first fault. An error means that the play itself failed: nothing is known then.
func (p *Player) Play(ctx context.Context, c Case) (result Result, err error) {
	fabric, err := NewFabric(portsOf(c))
	if err != nil {
		return Result{}, err
	}
	run := &play{
		Player: p, fabric: fabric, server: NewServer(), state: State{}, sandboxes: map[types.UID]Sandbox{},
		pods:   map[spot]bool{},
		sample: rand.New(rand.NewPCG(0, crc64.Checksum([]byte(c.Name), crc64.MakeTable(crc64.ECMA)))),
		oracle: &Oracle{Node: p.Node, Plugins: p.Plugins, Flags: c.Flags},
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

// portsOf returns the ports that are probed in a case.
func portsOf(c Case) []uint16 {
	ports := slices.Clone(somePorts)
	for _, s := range c.Steps {
		for _, e := range s.Expect {
			for _, service := range e.Services {
				if service.proto != ICMP && !slices.Contains(ports, service.port) {
					ports = append(ports, service.port)
				}
			}
		}
	}
	return ports
}

// play is a case that is played.
type play struct {
	*Player
	fabric    *Fabric
	server    *Server
	oracle    *Oracle
	agent     Agent // nil: stopped
	state     State
	sandboxes map[types.UID]Sandbox
	pods      map[spot]bool // addresses that pods have or had
	forgotten bool          // entries of connection tracking were deleted, and the agent may not have noticed
	foreign   bool          // a table that another agent left is in force: the oracle knows nothing
	sample    *rand.Rand
	result    Result
}

// spot is an address on a wire.
type spot struct {
	wire string
	addr netip.Addr
}

func (r *play) start() error {
	sandboxes := make([]Sandbox, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		sandboxes = append(sandboxes, s)
	}
	var err error
	r.agent, err = r.Start(r.server.Objects(), sandboxes, r.oracle.Flags)
	return err
}

func (r *play) stop() {
	if r.agent != nil {
		r.agent.Stop()
		r.agent = nil
	}
}

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

// happen makes an event happen to the API server and the kernel.
func (r *play) happen(ctx context.Context, e Event) error {
	switch {
	case e.Settle:
		return r.settle(ctx)
	case e.Stop:
		if err := r.settle(ctx); err != nil {
			return err
		}
		r.stop()
		return nil
	case e.Start:
		r.oracle.state = r.state
		r.oracle.Forget()
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
	if r.agent != nil { // a stopped agent sees nothing, and the rules stay as they are
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

// leave takes the pods that are gone off the wires.
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
	if _, known := r.sandboxes[s.UID]; !known && r.agent != nil {
		r.agent.SetSandbox(s)
	}
	r.sandboxes[s.UID] = s
	return nil
}

// settle waits until the agent, if it runs, has done all of its work.
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

// ErrFault is an agent that fails in another way than by a verdict.
var ErrFault = errors.New("the agent is at fault")

// compare sends all packets there are and compares their fate.
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

// judge returns how the kernel did otherwise than the oracle says.
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

// misexplained says how the agent explains a packet other than the kernel did, which was as the oracle says.
func (r *play) misexplained(p *Probe) string {
	for _, side := range []struct {
		egress bool
		self   Endpoint
		ruling Ruling
	}{{true, p.From.Endpoint(), p.Egress}, {false, p.To.Endpoint(), p.Ingress}} {
		if !side.self.IsPod() || !r.oracle.Enforced(side.self.Pod) {
			continue
		}
		if !side.egress && p.From.host == p.To.host { // by its address, it could be from somebody else
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

// tables checks that pods have a table just when a policy isolates them.
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
