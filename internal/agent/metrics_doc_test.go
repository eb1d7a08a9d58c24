package agent

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/cache"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/informers"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/reconciler"
)

var updateMetrics = flag.Bool("update-metrics", false, "rewrite the table of docs/metrics.md")

const (
	metricsPage  = "../../docs/metrics.md"
	metricsBegin = "<!-- the table is made of the code: go test ./internal/agent -run TestMetricsPage -update-metrics -->\n"
	metricsEnd   = "<!-- end of the table -->\n"
)

// allMetrics are those of an agent that watches nothing.
func allMetrics() *metrics {
	m := newMetrics("")
	state := cache.New(cache.Options{})
	m.watch(sources{
		state: state, progress: newProgress(m), reconciler: reconciler.New(state, nil, reconciler.Budget{}, nil), reports: informers.NewReporter(nil),
		events: informers.NewEvents(nil, ""), traces: newTraces(context.Background(), state), drops: newDropLog(context.Background(), state),
	})
	return m
}

func metricsTable(docs []metricDoc) string {
	docs = slices.Clone(docs)
	slices.SortFunc(docs, func(a, b metricDoc) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, d := range docs {
		labels := ""
		if len(d.labels) > 0 {
			labels = "`" + strings.Join(d.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.name, d.kind, labels, d.help)
	}
	return b.String()
}

// The page tells of every metric there is, in the words of the code.
func TestMetricsPage(t *testing.T) {
	data, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), metricsBegin)
	table, after, closed := strings.Cut(rest, metricsEnd)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", metricsPage)
	}
	want := metricsTable(allMetrics().docs)
	if table == want {
		return
	}
	if !*updateMetrics {
		t.Fatalf("the table is not of this code; run with -update-metrics. Want:\n%s", want)
	}
	if err := os.WriteFile(metricsPage, []byte(before+metricsBegin+want+metricsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is gathered is what is documented, and has the form that Prometheus asks for.
func TestMetricsForm(t *testing.T) {
	m := allMetrics()
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	known := map[string]bool{}
	for _, d := range m.docs {
		if known[d.name] {
			t.Errorf("%s is documented twice", d.name)
		}
		known[d.name] = true
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	gathered := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), metricsPrefix) {
			continue
		}
		gathered++
		if !known[f.GetName()] {
			t.Errorf("%s is not documented", f.GetName())
		}
	}
	if gathered != len(m.docs)-5 { // refused batches, the last sync, and the packets of policies and of pods have no samples yet
		t.Errorf("%d metrics gathered, %d documented", gathered, len(m.docs))
	}
}
