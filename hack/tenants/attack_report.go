package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/drops"
)

// reportAttacks are attacks on the reports of dropped packets, on audit mode, and on the answer about enforcement.
// Pods hand packets and messages to the agent. A flood of them must cost the agent little, and a forged message must not deceive it.
func reportAttacks() []attack {
	return []attack{
		{name: "drops-flood", does: "20 pods flood each other, 300 policies drop the packets, and an administrator follows the drops and asks where policies are enforced", start: floodedDrops, quick: true},
		{name: "drops-forged", does: "root in ten pods sends all packets to the agent's NFLOG group without a limit, with right and odd prefixes, and takes the group of two others", start: forgedDrops},
		{name: "netlink-forged", does: "root in pods sends forged messages of the kernel that have no end to all netlink sockets in the pods", start: forgedNetlink},
		{name: "modes-flap", does: "annotations drop-log and mode change all the time, to long and odd texts as well", start: flappingModes},
	}
}

// Annotations of the agent, and the NFLOG group to which its tables report dropped packets.
const (
	dropLogAnnotation = "multi-networkpolicy/drop-log"
	modeAnnotation    = "multi-networkpolicy/mode"
	traceAnnotation   = "multi-networkpolicy/trace"

	dropGroup = 10349
)

// reported are annotations of a pod whose dropped packets are reported.
var reported = map[string]string{dropLogAnnotation: "true"}

// follow follows the dropped packets of the node until the end of the attack. An error of the stream or of accept makes the attack count
// as broken, and so does a stream without a packet.
func (t *tenant) follow(accept func(drops.Drop) error) {
	var seen atomic.Int64
	ctx, stop := context.WithCancel(t.ctx)
	// The restart of the agent ends the stream, so the packets are counted before.
	t.claim("dropped packets are reported", func(context.Context) error {
		defer stop()
		if seen.Load() == 0 {
			return errors.New("there is none")
		}
		t.note("%d packets were reported", seen.Load())
		return nil
	})
	t.loops.Go(func() {
		defer stop()
		show := func(d drops.Drop) error { seen.Add(1); return accept(d) }
		err := drops.Follow(ctx, http.DefaultTransport, healthAddress, drops.Filter{}, drops.Handler{Show: show, Lost: func(int) error { return nil }})
		if err != nil && ctx.Err() == nil {
			t.fault("follow the drops: %v", err)
		}
	})
}

// ofTenant accepts packets of the tenant's pods: the victim's pods report nothing, and names are those of objects.
func ofTenant(d drops.Drop) error {
	if d.Namespace != evilNamespace || d.Interface != "net1" || !strings.HasPrefix(d.Pod, "pod-") {
		return fmt.Errorf("a packet of %s/%s on %q", d.Namespace, d.Pod, d.Interface)
	}
	return nil
}

// floodedDrops has policies with long names, and a report names policies. logAtMost bounds the log of the node, and the follower must be
// able to read every line.
func floodedDrops(ctx context.Context, t *tenant) error {
	err := t.many(300, func(i int) error {
		return t.policy(ctx, fmt.Sprintf("p-%d-%s", i, strings.Repeat("x", 200)), "net", object{"podSelector": object{}})
	})
	if err != nil {
		return err
	}
	list, err := t.startPods(ctx, 20, podOptions{annotations: reported})
	if err != nil {
		return err
	}
	for i, p := range list {
		if err := t.flood(p, list[(i+1)%len(list)].addr); err != nil {
			return err
		}
	}
	t.follow(ofTenant)
	ask := func(ctx context.Context) error {
		_, err := httpGet(ctx, "http://"+healthAddress+"/enforcement", 10*time.Second)
		return err
	}
	t.claim("where policies are enforced", ask)
	t.loop(func(ctx context.Context, _ int) error {
		if ask(ctx) != nil { // the agent restarts
			pause(ctx, 10*time.Millisecond)
		}
		return nil
	})
	return nil
}

// oddPrefixes are prefixes of the rules of root. The kernel cuts a prefix at 127 bytes.
var oddPrefixes = []string{
	"drop ingress-net1", "audit egress-net1", "drop ingress-net1\nI1128 00:00:00.000000 1 a.go:1] \"forged\"", "drop \x1b[2J\xff\xfe", "", strings.Repeat("x", 127),
}

// forgedDrops makes the agent read packets that no policy has dropped. That is allowed for the tenant's own pods. The agent must
// read a bounded number, and log only texts of its own.
func forgedDrops(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}, "ingress": []object{{}}}); err != nil {
		return err
	}
	list, err := t.startPods(ctx, 12, podOptions{annotations: reported})
	if err != nil {
		return err
	}
	takers, list := list[:2], list[2:]
	for _, p := range takers {
		t.loop(func(ctx context.Context, _ int) error { return takeGroup(ctx, p) })
	}
	conns, err := t.connect(list, nil)
	if err != nil {
		return err
	}
	for i, c := range conns {
		table := c.AddTable(inetTable("t"))
		chain := c.AddChain(&nftables.Chain{
			Name: "c", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
		})
		for _, prefix := range oddPrefixes {
			log := &expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: dropGroup, Data: []byte(prefix)}
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{log}})
		}
		if err := c.Flush(); err != nil {
			return err
		}
		if err := t.flood(list[i], list[(i+1)%len(list)].addr); err != nil {
			return err
		}
	}
	t.follow(ofTenant)
	return nil
}

// takeGroup takes the NFLOG group of a pod for a moment, if the agent does not have it.
func takeGroup(ctx context.Context, p *runningPod) error {
	return p.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)       //nolint:errcheck // nothing is lost with it
		const command, bind = 1, 1 // NFULNL_MSG_CONFIG has NFULA_CFG_CMD, which has NFULNL_CFG_CMD_BIND
		m := netlinkHeader(unix.SizeofNlMsghdr+12, unix.NFNL_SUBSYS_ULOG<<8|1, unix.NLM_F_REQUEST)
		m = append(m, unix.AF_UNSPEC, 0, dropGroup>>8, dropGroup&0xff)
		m = binary.NativeEndian.AppendUint16(m, 5)
		m = binary.NativeEndian.AppendUint16(m, command)
		if err := unix.Sendto(fd, append(m, bind, 0, 0, 0), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		pause(ctx, 10*time.Millisecond)
		return nil
	})
}

// netlinkHeader returns a struct nlmsghdr for a message with its length, header included.
func netlinkHeader(length uint32, typ, flags uint16) []byte {
	b := binary.NativeEndian.AppendUint32(nil, length)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	return append(b, make([]byte, unix.SizeofNlMsghdr-len(b))...)
}

// forgedNetlink sends parts of messages, and each part promises a further part. A reader that waits for the last part collects all parts
// in memory. Traces and reports make the agent open sockets that wait for messages.
func forgedNetlink(ctx context.Context, t *tenant) error {
	if err := t.policy(ctx, "p", "net", object{"podSelector": object{}}); err != nil {
		return err
	}
	annotations := maps.Clone(reported)
	annotations[traceAnnotation] = "--duration 60s"
	list, err := t.startPods(ctx, 4, podOptions{annotations: annotations})
	if err != nil {
		return err
	}
	for i, p := range list {
		if err := t.flood(p, list[(i+1)%len(list)].addr); err != nil {
			return err
		}
	}
	// Not from all pods: the senders would take all cores, which another attack does.
	for _, p := range list[:2] {
		t.loop(func(ctx context.Context, _ int) error {
			return p.Do(func() error { return forgeMessages(ctx, 100*time.Millisecond) })
		})
	}
	t.claim("the agent collects no messages", collectsNothing)
	return nil
}

// collectsNothing returns an error if the agent has much more memory than the few objects of an attack need.
func collectsNothing(ctx context.Context) error {
	const most = 200 << 20 // bytes
	text, err := httpGet(ctx, "http://"+metricsAddress+"/metrics", 10*time.Second)
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		var n float64
		if scan, err := fmt.Sscanf(line, "process_resident_memory_bytes %g", &n); scan == 1 && err == nil {
			if n > most {
				return fmt.Errorf("%.0f MiB of memory", n/(1<<20))
			}
			return nil
		}
	}
	return errors.New("the metrics of the agent lack its memory")
}

// forgeMessages sends parts of messages to all sockets of nfnetlink in the network namespace of the thread, and to the group of trace
// events, for a time.
func forgeMessages(ctx context.Context, length time.Duration) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost with it
	ports, err := netfilterPorts()
	if err != nil {
		return err
	}
	parts := slices.Repeat(netlinkHeader(unix.SizeofNlMsghdr, unix.NFNL_SUBSYS_ULOG<<8, unix.NLM_F_MULTI), 3_000)
	to := []*unix.SockaddrNetlink{{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTRACE - 1)}}
	for _, port := range ports {
		to = append(to, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port})
	}
	for end := time.Now().Add(length); time.Now().Before(end) && ctx.Err() == nil; {
		for _, a := range to {
			unix.Sendto(fd, parts, unix.MSG_DONTWAIT, a) //nolint:errcheck // the kernel or a full buffer may refuse it
		}
	}
	return nil
}

// netfilterPorts returns the ports of the sockets of nfnetlink in the network namespace of the thread.
func netfilterPorts() (ports []uint32, err error) {
	f, err := os.Open("/proc/thread-self/net/netlink")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var socket string
		var family int
		var port uint32
		if n, _ := fmt.Sscan(lines.Text(), &socket, &family, &port); n == 3 && family == unix.NETLINK_NETFILTER && port != 0 { //nolint:errcheck // the header
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// flappingModes changes the rules of all pods of the namespace with each change of an annotation, and makes problems to report.
func flappingModes(ctx context.Context, t *tenant) error {
	const n = 8
	for i := range n {
		if err := t.policy(ctx, fmt.Sprintf("p-%d", i), "net", object{"podSelector": object{}, "ingress": []object{{"from": []object{{"ipBlock": object{"cidr": block(i)}}}}}}); err != nil {
			return err
		}
	}
	list, err := t.startPods(ctx, n, podOptions{annotations: reported})
	if err != nil {
		return err
	}
	long := strings.Repeat("true", 50_000)
	values := append([]string{"true", "false", long, "", "TRUE"}, oddTexts...)
	modes := append([]string{"audit", "enforce", long, ""}, oddTexts...)
	for i, p := range list {
		if err := t.flood(p, list[(i+1)%n].addr); err != nil {
			return err
		}
		t.loop(func(ctx context.Context, round int) error {
			annotate := func(key, value string) object {
				return object{"metadata": object{"annotations": object{key: value}}}
			}
			err := t.api.merge(ctx, pods, evilNamespace, p.pod.Name, annotate(dropLogAnnotation, values[round%len(values)]))
			return errors.Join(err, t.api.merge(ctx, policies, evilNamespace, fmt.Sprintf("p-%d", i), annotate(modeAnnotation, modes[round%len(modes)])))
		})
	}
	return nil
}
