package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// run is main with an error. The program starts itself for each measurement: "scale agent URL LOCAL" is the agent's
// process.
func run(args []string) error {
	if len(args) == 3 && args[0] == "agent" {
		local, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return runAgent(args[1], local, os.Stdin, os.Stdout)
	}
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	sizes := f.String("pods", "1000,10000,100000", "numbers of pods in the cluster")
	namespaces := f.Int("namespaces", 5000, "namespaces")
	policies := f.Int("policies", 2000, "policies")
	local := f.Int("local", perNode, "pods on the agent's node")
	rate := f.Int("rate", 1000, "pod events per second of the churn")
	churn := f.Duration("churn", 30*time.Second, "time of the churn")
	memory := f.String("memory", "550MiB", "GOMEMLIMIT of the agent; the default is the DaemonSet's")
	most := f.Int("most", 0, "fail if a remote pod takes more bytes in the largest cluster; 0: no limit")
	if err := f.Parse(args); err != nil {
		return err
	}
	// The measurement without remote pods is the base: the bytes per remote pod are the growth of the heap over it.
	empty := cluster{*local, *namespaces, *policies, *local}
	base, err := measure(empty, *memory, 0, 0)
	if err != nil {
		return err
	}
	perPod := 0
	printHead()
	for text := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		c := empty
		c.pods = n
		m, err := measure(c, *memory, *rate, *churn)
		if err != nil {
			return fmt.Errorf("%d pods: %w", n, err)
		}
		// The heap may be smaller than the base, so the difference is signed.
		perPod = int(int64(m.start.Heap)-int64(base.start.Heap)) / max(1, c.pods-c.local)
		printRow(&c, perPod, m)
	}
	// The last cluster is the largest, if the sizes are in ascending order.
	if *most > 0 && perPod > *most {
		return fmt.Errorf("a remote pod takes %d bytes, more than %d", perPod, *most)
	}
	return nil
}

// measurement is the outcome of one cluster.
type measurement struct {
	start, churned state         // at the start, and after the churn
	took           time.Duration // of the churn
	sent           uint64        // bytes of the initial events, on the wire
}

// measure runs an agent in a process of its own: its heap and CPU time are the agent's alone, and memory limits only
// the agent (GOMEMLIMIT).
func measure(c cluster, memory string, rate int, churn time.Duration) (m measurement, err error) {
	s, err := newServer(&c)
	if err != nil {
		return m, err
	}
	defer s.http.Close() //nolint:errcheck // it only answers the agent, which has ended
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	child := exec.Command(self, "agent", s.url, strconv.Itoa(c.local))
	child.Env, child.Stderr = append(os.Environ(), "GOMEMLIMIT="+memory), os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		return m, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := child.Start(); err != nil {
		return m, err
	}
	defer func() {
		in.Close() //nolint:errcheck // the agent ends at the end of its input
		err = errors.Join(err, child.Wait())
	}()
	answers := bufio.NewReader(out)
	if m.start, err = ask(in, answers); err != nil || churn == 0 {
		return m, err
	}
	m.sent = s.sent.Load()
	begin := time.Now()
	if err := s.churn(rate, churn); err != nil {
		return m, err
	}
	m.took = time.Since(begin)
	m.churned, err = ask(in, answers)
	return m, err
}

// ask asks the agent for its state, and waits until the agent is at rest.
func ask(in io.Writer, answers *bufio.Reader) (s state, err error) {
	if _, err := fmt.Fprintln(in); err != nil {
		return s, err
	}
	line, err := answers.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("the agent ended: %w", err)
	}
	return s, json.Unmarshal(line, &s)
}

// churn changes the labels of remote pods at a rate per second. A client or a probe ceases to be a peer, or becomes a
// peer again; other pods concern no policy.
func (s *server) churn(rate int, length time.Duration) error {
	// The seed is fixed, so that runs compare.
	random := rand.New(rand.NewPCG(1, 2))
	toggled := map[int]bool{}
	begin := time.Now()
	for i := range int(length.Seconds() * float64(rate)) {
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
	}
	return nil
}

// printHead prints the heading of the table of results, in Markdown.
func printHead() {
	fmt.Printf("%d cores, %s. Sizes in MiB, latencies in ms.\n\n", runtime.NumCPU(), runtime.Version())
	columns := []string{
		"pods", "received at the start", "heap", "largest heap", "bytes per remote pod", "enforced after the last object", "events/s",
		"cores", "latency median", "p99", "largest", "samples", "longest queue",
	}
	fmt.Printf("| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" ---: |", len(columns)))
}

// printRow prints the row of a cluster.
func printRow(c *cluster, perPod int, m measurement) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
	mib := func(n uint64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }
	list := m.churned.Latency
	median, p99, largest := "-", "-", "-"
	if len(list) > 0 {
		median, largest = ms(percentile(list, 0.5)), ms(percentile(list, 1))
	}
	if len(list) >= 300 { // with fewer samples, p99 is one of the three largest values, and says little
		p99 = ms(percentile(list, 0.99))
	}
	fmt.Printf("| %d | %s | %s | %s | %d | %s | %.0f | %.2f | %s | %s | %s | %d | %d |\n", c.pods, mib(m.sent), mib(m.start.Heap),
		mib(m.start.Peak), perPod, m.start.Settled.Round(time.Millisecond), float64(m.churned.Events)/m.took.Seconds(),
		m.churned.CPU.Seconds()/m.took.Seconds(), median, p99, largest, len(list), m.churned.Queue)
}
