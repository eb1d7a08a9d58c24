package command

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// agentVar marks a process of this test binary that is no test but an agent, with an agent's command line.
const agentVar = "MULTI_NETWORKPOLICY_TEST_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(agentVar) != "" {
		os.Exit(agentMain())
	}
	lab.Main(m)
}

// agentMain is the program, but that SIGUSR1 makes it panic.
func agentMain() int {
	fault := make(chan os.Signal, 1)
	signal.Notify(fault, syscall.SIGUSR1)
	go func() { panic(<-fault) }()
	return Main("test", os.Args[1:], os.Stdout, os.Stderr)
}
