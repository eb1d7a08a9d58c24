// Command e2e deploys the agent on a real Kubernetes, as a user does, and sends packets to check the policies. It needs root and
// nothing else: hack/cluster creates the cluster.
//
//	hack/release             ─► image.tar, install.yaml     ─┐
//	hack/cluster, hack/image ─► cluster of 2 nodes, images  ─┤
//	manifests, docs/*.md     ─► kubectl, as a user types it ─┼─► scenario ─► report: a line for each check
//	hack/probe               ─► packets between test pods   ─┤
//	migration                ─► rules of other agents       ─┘
//
// First it plays docs/quick-start.md, from install to uninstall, and compares the output of each command with the page. -transcript runs only
// this part, and -transcript -update writes the output into the page.
//
// Then a scenario deploys the agent, applies the example policies, restarts the agent, starts pods, and runs every command of the
// documentation. After each step it compares the packets that arrive with the expectation in expect.go. Each check prints a line,
// and the last line counts the checks. The exit code is 1 if a check fails.
//
// The last part follows docs/migration.md from other agents to this agent and back, while allowed and forbidden packets are in flight.
// The old agents are recorded rules (folder migration), or real processes with -old-agents DIR. -migration runs only this part.
package main
