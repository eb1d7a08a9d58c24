package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/nft"
)

// Patience of the measurements. A sample that exceeds it counts with the patience, which breaks every bound.
const (
	changePatience = 30 * time.Second
	eventPatience  = 10 * time.Second
)

// A change that forbids shows when so many datagrams in a row, over so much time, have not arrived.
// A datagram that is still on its way at the change does not count as a packet that passes: the last arrival counts,
// by the time at which it was sent.
const (
	quietDatagrams = 25
	quietTime      = 30 * time.Millisecond
)

// startWatch is how long a pod that has started is flooded with forbidden packets.
// It is the time in which a pod without rules would be open: until the agent notices it.
const startWatch = 40 * time.Millisecond

// samples are the measurements of a phase.
type samples struct {
	changes []time.Duration // from the API server's answer until packets show the change
	own     []time.Duration // the agent's part of it: from when a watch of the rig has delivered the change
	hooks   []time.Duration // from the runtime's question until the answer
	events  []time.Duration // from the creation of an invalid policy until its Event
	refused []string        // pods that did not start
	failed  []string        // measurements that went wrong
	leaks   int             // forbidden packets
	lost    int             // allowed packets
}

// slowest returns the largest sample; 0 if there is none.
func slowest(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return slices.Max(list)
}

// median returns the middle of the samples; 0 if there is none.
func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// cycle measures two kinds of changes and the start of a pod, once each.
// A cycle takes as long as the agent needs; while an attack lasts, cycles follow each other. The changes take
// different ways through the agent: a label of a peer comes by the watch of pods, a CIDR by the watch of policies.
func (v *victim) cycle(ctx context.Context, s *samples) {
	label := func(app string) func() (metadata, error) {
		return func() (metadata, error) {
			patch := object{"metadata": object{"labels": object{"app": app}}}
			return v.user.patch(ctx, mergePatch, pathOf(pods, victimNamespace, "mover"), patch)
		}
	}
	block := func(cidr string) func() (metadata, error) {
		return func() (metadata, error) {
			patch := object{"spec": blockSpec(cidr)}
			return v.user.patch(ctx, mergePatch, pathOf(policies, victimNamespace, "extra"), patch)
		}
	}
	v.change(ctx, s, "mover", v.beams[0], label("friend"), label("none"))
	v.change(ctx, s, "block", v.beams[1], block(addresses["block"].String()+"/32"), block(noBlock))
	v.start(ctx, s)
}

// change lets a host reach the server, and forbids it again.
// beams send a datagram every millisecond all the time, so an arrival dates a change to a millisecond. Packets that
// arrive before the change is made are leaks.
func (v *victim) change(ctx context.Context, s *samples, name string, b *beam, allow, forbid func() (metadata, error)) {
	from := addresses[name]
	// Datagrams since the last cycle were forbidden all the time.
	s.leaks += int(v.receiver.mark(from).count)
	// The answer has the resource version, by which the watch dates the change.
	written, err := allow()
	if err != nil {
		s.fail(ctx, "allow %s: %v", name, err)
		return
	}
	asked := time.Since(clockStart)
	got, ok := v.await(ctx, func() (arrivals, bool) { a := v.receiver.got(from); return a, a.count > 0 })
	if !ok {
		// The sample counts with the patience then, as no packet shows the change.
		s.fail(ctx, "%s is allowed, and no packet passes within %s", name, changePatience)
		got.firstAt = time.Since(clockStart)
	}
	s.changed(asked, got.firstAt, v.watch.told(written))
	if written, err = forbid(); err != nil {
		s.fail(ctx, "forbid %s: %v", name, err)
		return
	}
	asked = time.Since(clockStart)
	got, ok = v.await(ctx, func() (arrivals, bool) {
		a := v.receiver.got(from)
		// Enough datagrams were sent after the last arrival, and enough time has passed since the request was
		// answered.
		isQuiet := b.sent.Load() >= a.last+quietDatagrams && time.Since(clockStart)-max(a.lastAt, asked-quietTime) >= quietTime
		return a, isQuiet
	})
	if !ok {
		s.fail(ctx, "%s is forbidden, and packets pass after %s", name, changePatience)
	}
	s.changed(asked, got.lastAt, v.watch.told(written))
	// Between the first and the last arrival every datagram was allowed, so each gap is a loss.
	s.lost += got.missing()
	v.receiver.mark(from)
}

// changed notes a change: when the API server answered, when packets showed it, and when a watch delivered it. The
// times are since clockStart.
// The agent's part starts when the change can have reached the agent. A negative time counts as 0.
func (s *samples) changed(asked, shown, told time.Duration) {
	s.changes = append(s.changes, max(0, shown-asked))
	s.own = append(s.own, max(0, shown-max(asked, told)))
}

// await asks until the answer is final, for the patience of changes.
func (v *victim) await(ctx context.Context, ask func() (arrivals, bool)) (arrivals, bool) {
	for end := time.Now().Add(changePatience); ; time.Sleep(time.Millisecond) {
		a, ok := ask()
		if ok || time.Now().After(end) || ctx.Err() != nil {
			return a, ok
		}
	}
}

// fail notes a measurement that went wrong, unless the run ends.
func (s *samples) fail(ctx context.Context, format string, args ...any) {
	if ctx.Err() == nil {
		s.failed = append(s.failed, fmt.Sprintf(format, args...))
	}
}

// start starts a pod of the victim through the hook, while an allowed and a forbidden host flood it.
// The host is wiped before, so it looks like a new sandbox. The floods run before the pod starts: a pod that is open
// for a moment lets forbidden datagrams in, which its socket counts.
func (v *victim) start(ctx context.Context, s *samples) {
	i := v.starter
	v.starter = (v.starter + 1) % starters
	h := v.hosts[fmt.Sprintf("starter-%d", i)]
	if err := wipe(ctx, h); err != nil {
		s.fail(ctx, "wipe %s: %v", h.Name, err)
		return
	}
	pod, err := v.startingPod(ctx, h)
	defer v.endPod(ctx, s, pod.SandboxID, pod.Name)
	if err != nil {
		s.fail(ctx, "create a pod that starts: %v", err)
		return
	}
	// The floods run before the pod starts.
	stop, err := v.beamTo(starterAddress(i))
	if err != nil {
		s.fail(ctx, "%v", err)
		return
	}
	defer stop()
	asked := time.Now()
	// The hook: the agent enforces the policies of the pod, or refuses it.
	err = v.runtime.run(ctx, pod)
	// A pod that is refused counts too: its caller waited for the refusal.
	s.hooks = append(s.hooks, time.Since(asked))
	if err != nil {
		if ctx.Err() == nil {
			s.refused = append(s.refused, err.Error())
		}
		return
	}
	defer v.runtime.end(context.WithoutCancel(ctx), pod)
	v.watchStarted(ctx, s, h, pod.Name, starterAddress(i))
}

// watchStarted is the first process of a pod that has started: the allowed host gets through at once, the forbidden host
// does not.
// The network status comes after the start, as Multus and the kubelet report it then.
func (v *victim) watchStarted(ctx context.Context, s *samples, h *lab.Host, name string, addr netip.Addr) {
	r, err := newReceiver(h)
	if err != nil {
		s.fail(ctx, "%v", err)
		return
	}
	defer r.close()
	opened := time.Now()
	// The allowed host must reach the pod although no status of it exists yet.
	_, ok := v.await(ctx, func() (arrivals, bool) { a := r.got(addresses["friend"]); return a, a.count > 0 })
	if !ok {
		s.fail(ctx, "the allowed peer does not reach the pod %s that has started", name)
	}
	if err := v.admin.report(ctx, victimNamespace, name, networkStatus(victimNetwork, addr)); err != nil {
		s.fail(ctx, "report the status of %s: %v", name, err)
	}
	// Opening the receiver and the report took part of the time already.
	pause(ctx, startWatch-time.Since(opened))
	s.leaks += int(r.got(addresses["stranger"]).count)
	s.lost += r.got(addresses["friend"]).missing()
}

// startWithoutNRI starts a pod of the victim without the hook, and returns how long the pod was open.
// The runtime lists the pod, and the agent finds it at its next look. The duration ends when the agent's table is
// there.
func (v *victim) startWithoutNRI(ctx context.Context) (took time.Duration, err error) {
	i := v.starter
	v.starter = (v.starter + 1) % starters
	h := v.hosts[fmt.Sprintf("starter-%d", i)]
	if err := wipe(ctx, h); err != nil {
		return 0, err
	}
	pod, err := v.startingPod(ctx, h)
	var s samples
	defer v.endPod(ctx, &s, pod.SandboxID, pod.Name)
	if err != nil {
		return 0, err
	}
	defer v.runtime.end(context.WithoutCancel(ctx), pod)
	start := time.Now()
	v.runtime.add(pod)
	err = eventually(ctx, changePatience, "the pod has a table", func() error { return hasTable(h) })
	return time.Since(start), err
}

// hasTable returns an error unless the agent's table is in the host.
func hasTable(h *lab.Host) error {
	tables, err := runNFT(h, "list tables\n")
	if err == nil && tables == "" {
		err = errors.New("it has none")
	}
	return err
}

// beamTo starts beams from the friend and the stranger.
// Both send all the time until stop, whether or not anything answers.
func (v *victim) beamTo(to netip.Addr) (stop func(), err error) {
	allowed, err := startBeam(v.hosts["friend"], to)
	if err != nil {
		return nil, err
	}
	forbidden, err := startBeam(v.hosts["stranger"], to)
	if err != nil {
		allowed.end()
		return nil, err
	}
	return func() { allowed.end(); forbidden.end() }, nil
}

// endPod removes a pod that was started.
// The deletion of the pod in the API comes after the end of its sandbox, as with a kubelet.
func (v *victim) endPod(ctx context.Context, s *samples, id, name string) {
	if id == "" {
		return
	}
	v.runtime.unmount(id)
	if err := v.user.remove(ctx, pods, victimNamespace, name); err != nil {
		s.fail(ctx, "delete the pod %s: %v", name, err)
	}
}

// wipe removes the table and the tracked connections of an earlier pod from a host, so that the next pod finds the network
// namespace of a new sandbox. The agent owns the table until it notices the end of the earlier pod.
func wipe(ctx context.Context, h *lab.Host) error {
	return eventually(ctx, changePatience, "remove the table", func() error {
		left, err := runNFT(h, "flush ruleset\nlist tables\n")
		if err == nil && left != "" {
			err = fmt.Errorf("%s is left", left)
		}
		if err != nil {
			return err
		}
		// The kernel walks all connections of the machine when a table with ct rules comes into a namespace that has any.
		// Their entries would make the next start slower, which is no work of the attack.
		return h.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	})
}

// runNFT runs nft as root of a host, with a script, and returns the output.
func runNFT(h *lab.Host, script string) (string, error) {
	out, err := nft.Run(h, script, "-f", "-")
	if err != nil {
		return "", fmt.Errorf("nft: %w: %.200s", err, out)
	}
	return strings.TrimSpace(out), nil
}

// event measures how long the Event about an invalid policy of the victim takes.
// The policy has a CIDR that no parser takes, so the agent must report it. Each policy has a new name, since Events
// about the same object have a budget.
func (v *victim) event(ctx context.Context, s *samples) {
	v.typos++
	name := fmt.Sprintf("typo-%d", v.typos)
	err := v.createPolicy(ctx, name, "nobody", object{"ingress": []object{{"from": []object{{"ipBlock": object{"cidr": "10.9.0.0/33"}}}}}})
	if apierrors.IsInvalid(err) {
		return // the shipped CRD refuses the policy
	}
	if err != nil {
		s.fail(ctx, "create an invalid policy: %v", err)
		return
	}
	start := time.Now()
	err = eventually(ctx, eventPatience, "Event about an invalid policy", func() error {
		return v.hasEvent(ctx, name)
	})
	s.events = append(s.events, time.Since(start))
	if err != nil {
		s.fail(ctx, "%v", err)
	}
	if err := v.user.remove(ctx, policies, victimNamespace, name); err != nil {
		s.fail(ctx, "delete an invalid policy: %v", err)
	}
}

// hasEvent returns an error unless there is an Event about the policy.
func (v *victim) hasEvent(ctx context.Context, policy string) error {
	data, err := v.admin.get(ctx, pathOf(events, victimNamespace)+"?fieldSelector=involvedObject.name%3D"+policy)
	if err != nil {
		return err
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	if len(list.Items) == 0 {
		return fmt.Errorf("there is none about %s", policy)
	}
	return nil
}
