package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The recording. Grafana's interval of rates is four times that of the scrapes.
const (
	duration       = 10 * time.Minute
	step           = 10 * time.Second
	scrapeInterval = 5 * time.Second
	rateInterval   = 4 * scrapeInterval
)

// record runs an agent in the rig, with Prometheus, and writes the values of all queries of the dashboard.
func record(ctx context.Context) (err error) {
	var d dashboard
	if err := readJSON(".", dashboardFile, &d); err != nil {
		return err
	}
	prometheus, err := findPrometheus()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dashboard")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	metrics, web, err := freeAddresses()
	if err != nil {
		return err
	}
	r, err := newRig(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()

	program := filepath.Join(dir, "agent")
	if err := run(ctx, "go", "build", "-o", program, "."); err != nil {
		return err
	}
	agent, err := start(ctx, dir+"/agent.log", append([]string{program, "--metrics-bind-address", metrics, "--health-bind-address="}, r.flags()...)...)
	if err != nil {
		return err
	}
	defer end(agent)
	config := fmt.Sprintf("global: {scrape_interval: %s}\nscrape_configs:\n- job_name: agent\n  static_configs:\n"+
		"  - targets: [%q]\n    labels: {instance: %s}\n", scrapeInterval, metrics, nodeName)
	if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o644); err != nil {
		return err
	}
	server, err := start(ctx, dir+"/prometheus.log", prometheus, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data",
		"--web.listen-address="+web)
	if err != nil {
		return err
	}
	defer end(server)

	begin := time.Now()
	if err := r.play(ctx, duration); err != nil {
		return errors.Join(err, showLog(dir+"/agent.log"))
	}
	s := series{Start: begin.UTC().Truncate(time.Second), Step: step.Seconds(), Queries: map[string][]values{}}
	if s.Recorded, err = recorded(begin); err != nil {
		return err
	}
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			if s.Queries[t.Expr], err = query(ctx, web, t.expression(), begin); err != nil {
				return fmt.Errorf("%s: %w", t.Expr, err)
			}
		}
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(seriesFile, append(compact(text), '\n'), 0o644)
}

// findPrometheus returns the path of the program, which hack/promtool.sh can unpack into bin.
func findPrometheus() (string, error) {
	if path, err := exec.LookPath("prometheus"); err == nil {
		return path, nil
	}
	if path, err := filepath.Abs("bin/prometheus"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("prometheus is missing: run hack/promtool.sh bin prometheus")
}

// freeAddresses returns two addresses on loopback.
func freeAddresses() (a, b string, err error) {
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close() //nolint:errcheck // it only reserves the port
		addresses = append(addresses, l.Addr().String())
	}
	return addresses[0], addresses[1], nil
}

// run runs a command and shows its output.
func run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// start starts a process that writes into a log.
func start(ctx context.Context, log string, args ...string) (*exec.Cmd, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // the process has it open
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = file, file
	return cmd, cmd.Start()
}

// end ends a process and waits for it.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	_ = cmd.Wait()                          //nolint:errcheck // as above
}

// showLog returns the end of a log as an error.
func showLog(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return errors.New(string(text[max(0, len(text)-2000):]))
}

// recorded describes the recording: the date and the kernel.
func recorded(at time.Time) (string, error) {
	var name unix.Utsname
	err := unix.Uname(&name)
	return fmt.Sprintf("recorded on %s, Linux %s", at.UTC().Format(time.DateOnly), unix.ByteSliceToString(name.Release[:])), err
}

// query asks Prometheus for the values of an expression during the recording.
func query(ctx context.Context, address, expression string, begin time.Time) ([]values, error) {
	parameters := url.Values{
		"query": {expression}, "step": {step.String()},
		"start": {strconv.FormatInt(begin.Unix(), 10)}, "end": {strconv.FormatInt(begin.Add(duration).Unix(), 10)},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/query_range?"+parameters.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	list := []values{}
	for _, r := range answer.Data.Result {
		v := values{Labels: map[string]string{}, Values: make([]*float64, int(duration/step)+1)}
		for name, value := range r.Metric {
			if name != "__name__" && name != "job" {
				v.Labels[name] = value
			}
		}
		for _, sample := range r.Values {
			at, _ := sample[0].(float64)
			value, err := strconv.ParseFloat(fmt.Sprint(sample[1]), 64)
			if err != nil {
				return nil, err
			}
			// NaN is the quantile of no events. Four digits are more than the picture shows.
			if i := int((at - float64(begin.Unix())) / step.Seconds()); value == value && i >= 0 && i < len(v.Values) {
				rounded, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 4, 64), 64)
				if err != nil {
					return nil, err
				}
				v.Values[i] = &rounded
			}
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b values) int { return cmp.Compare(fmt.Sprint(a.Labels), fmt.Sprint(b.Labels)) })
	return list, nil
}

// compact puts each list of values on a line.
func compact(text []byte) []byte {
	var b strings.Builder
	inValues := false
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, `"Values": [`):
			inValues = true
			b.WriteString(strings.TrimRight(line, "\n"))
		case inValues && strings.HasPrefix(trimmed, "]"):
			inValues = false
			b.WriteString(trimmed + "\n")
		case inValues:
			b.WriteString(trimmed)
		default:
			b.WriteString(line)
		}
	}
	return []byte(b.String())
}
