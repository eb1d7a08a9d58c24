package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/nri/pkg/api"
)

// Bounds that every attack must keep. A victim must not notice the attack, so most of them do not depend on it.
// Each bound names the harm that it excludes. A wider bound hides the harm, a narrower bound breaks on a busy
// machine.
const (
	// No forbidden packet may pass and no allowed packet may be lost, at any time, restart of the agent included.
	leaksAtMost = 0
	lostAtMost  = 0

	// ownAtMost is the agent's part of each change of the victim, from when a watch has delivered the change until packets
	// show it. People wait for a change of a policy, so more seconds are too long. Two cores, which the agent shares with the
	// attack and the API server, need up to 0.8 s, and once took 1.4 s.
	ownAtMost = 2 * time.Second

	// changeAtMost is for the whole of each change. Nearly all of it is the API server's, which decodes and checks the
	// objects of the attack before it tells anybody about the change: up to 8 s for 40 objects of the largest size on two
	// cores. So it only bounds the rig.
	changeAtMost = 20 * time.Second

	// foundAtMost is the time until a pod that starts without NRI has a table.
	foundAtMost = 3 * time.Second

	// The typical change during and after an attack may take a few times as long as before it. The floor is for the cores
	// that the API server, the floods and the attacker share with the agent here.
	changeFactor = 5
	changeFloor  = 250 * time.Millisecond

	// hookAtMost is for the start of each pod of the victim, with the time that the runtime spends on the pods in front of
	// it. It is below the time after which a runtime gives up on a plugin (api.DefaultPluginRequestTimeout), as an answer
	// that takes longer may open a pod.
	hookAtMost = api.DefaultPluginRequestTimeout * 3 / 4

	// refusedAtMost is the number of the victim's pods that do not start. The kubelet would retry after seconds.
	refusedAtMost = 0

	// eventAtMost is for the Event about an invalid policy of the victim. The Events of a namespace wait for no other.
	eventAtMost = 5 * time.Second

	// readyAtMost is for an agent that starts while the objects of the attack exist. A rollout waits for it on each node. The
	// attacker's pods count, too: up to 8 s of two cores, if 250,000 members of groups are in ten pods.
	readyAtMost   = 20 * time.Second
	readyPatience = 30 * time.Second

	// logAtMost is the log of an attack, over some tens of seconds. A node keeps 10 MiB of a container's log by default.
	logAtMost = 1 << 20

	// eventsAtMost is the number of Events of an attack: the budget of its two namespaces, and some Events of the victim.
	eventsAtMost = 500

	// deathsAtMost is for agents that end by themselves, probesAtMost for probes of their life that fail.
	deathsAtMost = 0
	probesAtMost = 0

	// An agent forgets deleted objects. The margin is for connections and timers that end a little later.
	goroutinesMargin  = 40
	descriptorsMargin = 20

	undoPatience = 2 * time.Minute
)

// judge notes the bounds that a row breaks, and whether all of them are times: these depend on the other work of the machine.
// memoryLimit is the limit of the agent's cgroup in bytes. If all broken bounds are times, the rig runs the attack
// again.
func (r *row) judge(memoryLimit int64) {
	r.onlyTimes = true
	note := func(isTime, ok bool, format string, args ...any) {
		if !ok {
			r.broken = append(r.broken, fmt.Sprintf(format, args...))
			r.onlyTimes = r.onlyTimes && isTime
		}
	}
	check := func(ok bool, format string, args ...any) { note(false, ok, format, args...) }
	checkTime := func(ok bool, format string, args ...any) { note(true, ok, format, args...) }
	check(r.leaks <= leaksAtMost, "%d packets leaked", r.leaks)
	check(r.lost <= lostAtMost, "%d allowed packets lost", r.lost)
	// The typical change before the attack tells how busy the machine is; the bound is relative to it.
	typical := max(changeFloor, changeFactor*median(r.phases[before].changes))
	for p, s := range r.phases {
		checkTime(slowest(s.changes) <= changeAtMost, "a change took %s %s", round(slowest(s.changes)), phase(p))
		checkTime(slowest(s.own) <= ownAtMost, "the agent's part of a change took %s %s", round(slowest(s.own)), phase(p))
		checkTime(median(s.changes) <= typical, "a typical change took %s %s", round(median(s.changes)), phase(p))
		checkTime(slowest(s.hooks) <= hookAtMost, "a pod waited %s for the hook %s", round(slowest(s.hooks)), phase(p))
		checkTime(slowest(s.events) <= eventAtMost, "an Event took %s %s", round(slowest(s.events)), phase(p))
		// A pod that was refused since its rules were late is a time as well: the runtime would try again.
		note(areLate(s.refused), len(s.refused) <= refusedAtMost, "%d pods did not start %s: %.200v", len(s.refused), phase(p), s.refused)
		check(len(s.failed) == 0, "%s: %.300v", phase(p), s.failed)
	}
	checkTime(r.ready <= readyAtMost, "the agent was ready %s after its restart", round(r.ready))
	check(r.logBytes <= logAtMost, "%d bytes of log", r.logBytes)
	check(r.events <= eventsAtMost, "%d Events", r.events)
	check(len(r.health.deaths) <= deathsAtMost, "the agent ended %d times: %.200v", len(r.health.deaths), r.health.deaths)
	check(r.kills == 0, "the kernel killed the agent for its memory")
	check(r.health.badProbes <= probesAtMost, "%d probes of the agent's life failed", r.health.badProbes)
	// The kernel reclaims page cache before it kills, so reaching the limit is no kill yet; it is a bound of its own.
	check(r.peak < memoryLimit, "the agent reached its memory limit")
	check(r.goroutines <= goroutinesMargin, "%d goroutines remain", r.goroutines)
	check(r.descriptors <= descriptorsMargin, "%d descriptors remain", r.descriptors)
	// Faults are promises of single attacks, and steps that failed.
	check(len(r.faults) == 0, "%s", strings.Join(r.faults, "; "))
}

// areLate reports whether all of these pods did not start since the agent could not enforce their policies in time.
func areLate(refused []string) bool {
	return !slices.ContainsFunc(refused, func(text string) bool { return !strings.Contains(text, "not done in time") })
}
