package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// query is an expression of an alert or of the dashboard, with the names of labels in its texts.
type query struct {
	place, expr string
	texts       []string
}

// labelsOfPrometheus are the labels that Prometheus or its operator adds to each series.
var labelsOfPrometheus = []string{"instance", "job", "namespace", "pod", "container", "endpoint"}

var (
	metricName   = regexp.MustCompile(`\bmulti_networkpolicy_[a-z_]+`)
	metricUse    = regexp.MustCompile(`\b([a-z_]+)\{([^}]*)\}`)
	labelMatch   = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	labelGroup   = regexp.MustCompile(`\b(?:by|without|on|ignoring) \(([^)]*)\)`)
	labelInAlert = regexp.MustCompile(`\$labels\.([a-z_]+)`)
	labelInPanel = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
)

// alerts returns the expressions of the alerts.
func alerts(t *testing.T) (all []query) {
	t.Helper()
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr string
					Annotations map[string]string
				}
			}
		}
	}
	text, err := os.ReadFile("../../manifests/components/prometheus/rules.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Spec.Groups {
		for _, r := range g.Rules {
			q := query{place: "alert " + r.Alert, expr: r.Expr}
			for _, text := range r.Annotations {
				for _, m := range labelInAlert.FindAllStringSubmatch(text, -1) {
					q.texts = append(q.texts, m[1])
				}
			}
			all = append(all, q)
		}
	}
	return all
}

// panels returns the expressions of the dashboard.
func panels(t *testing.T) (all []query) {
	t.Helper()
	var dashboard struct {
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	text, err := os.ReadFile("../../manifests/components/prometheus/dashboard.json")
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" {
			all = append(all, query{place: "variable " + v.Name, expr: v.Query})
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			q := query{place: "panel " + p.Title, expr: target.Expr}
			for _, m := range labelInPanel.FindAllStringSubmatch(target.LegendFormat, -1) {
				q.texts = append(q.texts, m[1])
			}
			all = append(all, q)
		}
	}
	return all
}

// known has the labels of each series by its name, and the values of labels whose series all exist from the start.
type known struct {
	labels map[string][]string
	values map[string]map[string][]string
}

func knownSeries(t *testing.T) known {
	t.Helper()
	m := allMetrics()
	k := known{map[string][]string{}, map[string]map[string][]string{}}
	for _, d := range m.docs {
		k.labels[d.name] = d.labels
		if d.kind == "histogram" {
			delete(k.labels, d.name)
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				k.labels[d.name+suffix] = nil
			}
			k.labels[d.name+"_bucket"] = []string{"le"}
		}
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		values := map[string][]string{}
		for _, series := range f.GetMetric() {
			for _, label := range series.GetLabel() {
				values[label.GetName()] = append(values[label.GetName()], label.GetValue())
			}
		}
		k.values[f.GetName()] = values
	}
	return k
}

// check returns a line for each name in the query that the agent does not have.
func (k known) check(q query) (problems []string) {
	problem := func(format string, args ...any) {
		problems = append(problems, q.place+": "+fmt.Sprintf(format, args...))
	}
	names := metricName.FindAllString(q.expr, -1)
	if len(names) == 0 && !strings.HasPrefix(q.expr, "up{") {
		problem("no metric of the agent in %s", q.expr)
	}
	var labels []string // all that the metrics of the query have
	for _, name := range names {
		own, ok := k.labels[name]
		if !ok {
			problem("the agent has no metric %s", name)
		}
		labels = append(labels, own...)
	}
	for _, use := range metricUse.FindAllStringSubmatch(q.expr, -1) {
		matches := labelMatch.FindAllStringSubmatch(use[2], -1)
		if len(matches) != strings.Count(use[2], "=") && !strings.Contains(use[2], "!") {
			problem("cannot read {%s}", use[2])
		}
		for _, m := range matches {
			label, value := m[1], m[3]
			if slices.Contains(labelsOfPrometheus, label) {
				continue
			}
			if !slices.Contains(k.labels[use[1]], label) {
				problem("%s has no label %s", use[1], label)
				continue
			}
			wanted := []string{value}
			if strings.HasSuffix(m[2], "~") {
				wanted = strings.Split(value, "|")
			}
			for _, value := range wanted {
				if values := k.values[use[1]][label]; !slices.Contains(values, value) {
					problem("%s has %s=%q, not %q", use[1], label, values, value)
				}
			}
		}
	}
	grouped := q.texts
	for _, m := range labelGroup.FindAllStringSubmatch(q.expr, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			grouped = append(grouped, strings.TrimSpace(label))
		}
	}
	for _, label := range grouped {
		if !slices.Contains(labels, label) && !slices.Contains(labelsOfPrometheus, label) {
			problem("no metric has the label %s", label)
		}
	}
	return problems
}

// TestRulesAndDashboard checks that every metric, label and value in the alerts and in the dashboard exists.
func TestRulesAndDashboard(t *testing.T) {
	k := knownSeries(t)
	all := slices.Concat(alerts(t), panels(t))
	if len(all) < 30 {
		t.Errorf("only %d expressions", len(all))
	}
	for _, q := range all {
		for _, problem := range k.check(q) {
			t.Error(problem)
		}
	}
}

// TestRulesCheck checks that each kind of mistake in an expression is found.
func TestRulesCheck(t *testing.T) {
	k := knownSeries(t)
	for _, q := range []query{
		{expr: "multi_networkpolicy_pods_enforced > 0"},
		{expr: "multi_networkpolicy_sync_duration_seconds > 1"}, // a histogram has no series of its own name
		{expr: "rate(other_total[5m])"},
		{expr: `multi_networkpolicy_nri_state{status="connected"} == 0`},
		{expr: `multi_networkpolicy_nri_state{state="linked"} == 0`},
		{expr: `multi_networkpolicy_pods_with_bridge{enforcement!="policy"} > 0`},
		{expr: `multi_networkpolicy_pods_not_enforced{reason!~"kernel_error|no_kernel"} > 0`},
		{expr: "sum by (source) (multi_networkpolicy_pods_not_enforced)"},
		{expr: "multi_networkpolicy_pods_not_enforced > 0", texts: []string{"source"}},
	} {
		if len(k.check(q)) == 0 {
			t.Errorf("not found: %+v", q)
		}
	}
}
