package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// documented is a command from the documentation, with its expected output.
// A page is wrong if its command fails here, so a user never types a command that no test has given.
type documented struct {
	command string // as in the page, with the words that a reader fills in
	where   string // where it runs: "cp" (the control plane) or a node
	want    string // a part of the expected output; empty: only the exit code counts
}

// instead replaces words of a command: words that a reader fills in, or words that do not fit this cluster.
// They are replaced in the command and in the expected output.
type instead struct{ words, by string }

// documentedNode is the node of the pod shop/web, see documented.yaml.
const documentedNode = "node1"

// dropsCommand ends only when it is interrupted.
const dropsCommand = "kubectl mnp drops --pod shop/web"

// looks are commands that may run again and again: the test repeats each until it prints the expected output.
var looks = []documented{
	{"kubectl apply -f manifests/base/crd.yaml", "cp", "multi-networkpolicies.k8s.cni.cncf.io unchanged"},
	{"kubectl apply -k manifests", "cp", "daemonset.apps/multi-networkpolicy-nftables unchanged"},
	{"kubectl -n multi-networkpolicy-system rollout status ds/multi-networkpolicy-nftables", "cp", "successfully rolled out"},

	// The next command reads this output.
	{"kubectl get pods,namespaces,net-attach-def,multi-networkpolicies -A -o yaml > cluster.yaml", "cp", ""},
	{"multi-networkpolicy-nftables explain -f cluster.yaml --pod shop/web --from 10.10.0.33 --port 80", "cp", denied},
	{"multi-networkpolicy-nftables explain --kubeconfig ~/.kube/config --pod shop/web --from 10.10.0.33 --port 80", "cp", denied},
	{"kubectl -n multi-networkpolicy-system exec ds/multi-networkpolicy-nftables -- " +
		"/multi-networkpolicy-nftables explain --pod shop/web --from 10.10.0.33 --port 80", "cp", denied},

	{"multi-networkpolicy-nftables enforcement shop/web-policy", "cp", "Enforced  shop/web-policy  web  node1"},
	{"kubectl get multi-networkpolicies -n shop", "cp", `{"matchLabels":{"app":"web"}}`},

	{"nsenter --net=/run/netns/NAME nft list table inet multi_networkpolicy", documentedNode, `comment "shop/web-policy"`},

	{"kubectl -n shop get pod web -o wide", "cp", documentedNode},
	{"kubectl -n multi-networkpolicy-system get pods -o wide --field-selector spec.nodeName=NODE", "cp", "AGENT"},
	{"kubectl -n multi-networkpolicy-system logs AGENT", "cp", `"Policies enforced" pod="shop/web"`},

	{"multi-networkpolicy-nftables trace --pod shop/web --port 8080 --duration 3s", documentedNode, dropped},
	{"kubectl -n multi-networkpolicy-system exec AGENT -- " +
		"/multi-networkpolicy-nftables trace --pod shop/web --port 8080 --duration 3s", "cp", dropped},
	{"kubectl -n shop annotate pod web multi-networkpolicy/trace='--port 8080 --duration 2m'", "cp", "pod/web annotated"},
	{"kubectl -n multi-networkpolicy-system logs AGENT | grep Packet", "cp", `pod="shop/web"`},

	{"kubectl -n shop annotate pod web multi-networkpolicy/drop-log=true", "cp", "pod/web annotated"},
	{dropsCommand, "cp", "DROPPED shop/web: udp 10.10.0.33:"},

	// Last, since an agent reports a valid policy without effect only after a while.
	{"kubectl get events -A --field-selector reason=InvalidMultiNetworkPolicy", "cp", "multinetworkpolicy/no-network"},
	{"kubectl get events -A --field-selector reason=UnresolvedNamedPort", "cp", "multinetworkpolicy/port-of-nobody"},
	{"kubectl get events -A --field-selector reason=UnsupportedNetworkPlugin", "cp", "multinetworkpolicy/unsupported-network"},
	{"kubectl get events -A --field-selector reason=NotEnforceable", "cp", "multinetworkpolicy/not-enforceable"},
	{"kubectl get events -A --field-selector reason=UndefinedNetwork", "cp", "multinetworkpolicy/undefined-network"},
	{"kubectl get events -A --field-selector reason=InvalidNetworkStatus", "cp", "pod/unreadable-status"},
	{"kubectl get events -A --field-selector reason=InvalidNetworkAttachmentDefinition", "cp", "networkattachmentdefinition/unreadable-network"},
}

// ends are the commands that end enforcement, in order. The test runs each of them once, because each of them changes
// the cluster.
var ends = []documented{
	{"kubectl -n multi-networkpolicy-system delete daemonset multi-networkpolicy-nftables --cascade=foreground", "cp", "deleted"},
	{"multi-networkpolicy-nftables cleanup --netns /run/netns/NAME", documentedNode, "/run/netns/NAME: removed"},
	{"multi-networkpolicy-nftables cleanup", "node1", "shop/web: has no table"},
	{"multi-networkpolicy-nftables cleanup", "node2", "guest/outsider: removed"},
}

// The output of explain and trace for the packets of guest/outsider.
const (
	denied  = "DENIED: 80/tcp, ingress on net1 of shop/web from 10.10.0.33"
	dropped = "-> 10.10.0.12:8080, ingress on net1\n  decided by chain ingress-net1: no policy and no common rule allows it"
)

// documented runs each command of the documentation, in a cluster with the pods and policies of the documentation.
// The pages and the two lists are compared both ways, so a new command in a page fails the test until it is listed.
func (s *scenario) documented(ctx context.Context) error {
	// The list of commands here and the pages must agree, so that no page has an untested command.
	s.check("pages: their commands are those that are given here", undocumented(s.root))
	pods, err := s.documentedPods(ctx)
	s.check("pages: the pods that they speak of are there", err)
	if err != nil {
		return err
	}
	// The words can be filled in only when the pods run: a name of a network namespace is random.
	words, err := s.words(ctx, pods["web"])
	if err != nil {
		return err
	}
	// The packets from the outsider are the packets that explain and trace speak of; no policy allows them.
	forbidden := flow{"outsider", "web", "net1", netip.MustParseAddr("10.10.0.12"), "udp/8080"}
	stop, err := s.leak(ctx, pods, forbidden)
	if err != nil {
		return err
	}
	// The commands may run again and again, so each is retried until its effect shows.
	for _, d := range looks {
		s.check("pages: "+d.command, s.eventually(ctx, func() error { return s.give(ctx, d, words) }))
	}
	s.check("pages: nothing leaks meanwhile", stop())
	// The commands that end enforcement run once each, in their order.
	for _, d := range ends {
		s.check("pages: "+d.command+", on "+d.where, s.give(ctx, d, words))
	}
	s.check("pages: no table is left", errors.Join(s.tables(ctx, pods), s.tables(ctx, s.pods)))
	s.note("pages")
	return nil
}

// documentedPods starts the pods of the documentation and waits until the agents isolate them.
func (s *scenario) documentedPods(ctx context.Context) (map[string]*pod, error) {
	// Retry: the API server refuses pods in a namespace without a service account.
	err := s.eventually(ctx, func() error {
		return s.must(ctx, "apply", "-f", "internal/demo/files/cluster/namespaces.yaml",
			"-f", "hack/e2e/documented.yaml", "-f", "internal/demo/files/policies")
	})
	if err != nil {
		return nil, err
	}
	pods := map[string]*pod{}
	return pods, s.eventually(ctx, func() error {
		for namespace, name := range map[string]string{"shop": "web", "guest": "outsider"} {
			some, err := s.testPods(ctx, "-n", namespace, "-l", "app="+name)
			if err != nil {
				return err
			}
			pods[name] = some[name]
		}
		return s.tables(ctx, pods, "web", "outsider")
	})
}

// words returns the words that a reader fills in, and the manifests with the image that the test packs.
// web is the pod whose node, network namespace and agent the pages speak of.
func (s *scenario) words(ctx context.Context, web *pod) ([]instead, error) {
	netns, err := s.output(ctx, s.in(web.node, "ip", "netns", "identify", fmt.Sprint(web.sandbox))...)
	if err != nil {
		return nil, err
	}
	agent, err := s.kubectl(ctx, "get", "pods", "-n", namespace, "-l", agentLabel, "--field-selector", "spec.nodeName="+web.node,
		"-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return nil, err
	}
	if err := s.newHome(); err != nil {
		return nil, err
	}
	return []instead{
		{dropsCommand, "timeout --preserve-status 2 " + dropsCommand},
		{"NAME", strings.TrimSpace(string(netns))},
		{"NODE", web.node},
		{"AGENT", string(agent)},
		{"cluster.yaml", filepath.Join(s.home(), "cluster.yaml")},
		{"-k manifests", strings.Join(s.manifests(), " ")},
	}, nil
}

// home is the home directory of the commands, with a kubeconfig.
func (c *cluster) home() string { return filepath.Join(c.dir, "run/home") }

// newHome makes a new home directory, so that no file of an earlier run is found.
func (c *cluster) newHome() error {
	config := filepath.Join(c.home(), ".kube/config")
	if err := errors.Join(os.RemoveAll(c.home()), os.MkdirAll(filepath.Dir(config), 0o700)); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(c.dir, "run/pki/admin.kubeconfig"), config)
}

// give runs a command as a user types it, in a shell. It fails if the exit code is not 0 or the expected output is
// missing.
// The words are replaced in the command and in the expected output.
func (s *scenario) give(ctx context.Context, d documented, words []instead) error {
	var pairs []string
	for _, w := range words {
		pairs = append(pairs, w.words, w.by)
	}
	fill := strings.NewReplacer(pairs...)
	out, err := s.output(ctx, s.in(d.where, "env", "HOME="+s.home(), "bash", "-c", fill.Replace(d.command))...)
	if want := fill.Replace(d.want); err == nil && !strings.Contains(string(out), want) {
		err = fmt.Errorf("it does not say %q but:\n%s", want, out)
	}
	return err
}

// undocumented returns an error for each command that is in the pages but not in this test, or the other way round.
// Commands are compared as text, with single blanks.
func undocumented(root string) error {
	pages, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		return err
	}
	known, found := map[string]bool{}, map[string]bool{}
	for _, d := range slices.Concat(looks, ends) {
		known[d.command] = true
	}
	var errs []error
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		for _, command := range commands(string(text)) {
			found[command] = true
			if !known[command] {
				errs = append(errs, fmt.Errorf("%s: no test gives the command %q", page, command))
			}
		}
	}
	for command := range known {
		if !found[command] {
			errs = append(errs, fmt.Errorf("no page has the command %q", command))
		}
	}
	return errors.Join(errs...)
}

// shellBlock matches a block of commands that need a cluster. Commands that need no cluster are in console blocks.
var shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")

// commands returns the commands in the shell blocks of a page, each on a single line and without its comment.
// A backslash at the end of a line joins it with the next line.
func commands(page string) (all []string) {
	for _, block := range shellBlock.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", "")) {
			command, _, _ := strings.Cut(line, " #")
			if words := strings.Fields(command); len(words) > 0 {
				all = append(all, strings.Join(words, " "))
			}
		}
	}
	return all
}
