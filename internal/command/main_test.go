package command

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// agentVar is set for processes of this test binary that run as an agent, with an agent's command line.
const agentVar = "MULTI_NETWORKPOLICY_TEST_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(agentVar) != "" {
		os.Exit(agentMain())
	}
	lab.Main(m)
}

// agentMain is the main function of the agent, with two faults for tests: SIGUSR1 makes it panic, and largestWriteVar refuses
// large writes.
func agentMain() int {
	if larger, err := strconv.Atoi(os.Getenv(largestWriteVar)); err == nil {
		if err := refuseWrites(uint32(larger)); err != nil {
			panic(err)
		}
	}
	fault := make(chan os.Signal, 1)
	signal.Notify(fault, syscall.SIGUSR1)
	go func() { panic(<-fault) }()
	return Main("test", os.Args[1:], os.Stdout, os.Stderr)
}
