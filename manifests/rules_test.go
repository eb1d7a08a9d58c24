package manifests

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// alert is an alert of the PrometheusRule.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// ruleGroups is the spec of the PrometheusRule, which is a file of rules for Prometheus.
type ruleGroups struct {
	Groups []struct {
		Name  string  `json:"name"`
		Rules []alert `json:"rules"`
	} `json:"groups"`
}

// readRules returns the rules of the component prometheus.
func readRules(t *testing.T) ruleGroups {
	t.Helper()
	var rules ruleGroups
	for _, o := range build(t, "prometheus") {
		if o["kind"] == "PrometheusRule" {
			convert(t, o["spec"], &rules)
		}
	}
	if len(rules.Groups) == 0 {
		t.Fatal("the component has no rules")
	}
	return rules
}

// promtool runs promtool, which `make tools` puts into bin.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		program = "../bin/promtool"
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s (make tools installs it): %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestRules runs the unit tests of the alerts. Each alert must have a test in which it fires, and a test in which it does not.
func TestRules(t *testing.T) {
	rules := readRules(t)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			delete(r.Annotations, "runbook_url")
		}
	}
	tests, err := os.ReadFile("testdata/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"rules.yaml": text, "tests.yaml": tests} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "check", "rules", filepath.Join(dir, "rules.yaml"))
	promtool(t, "test", "rules", filepath.Join(dir, "tests.yaml"))

	var file struct {
		Tests []struct {
			Cases []struct {
				Alert string `json:"alertname"`
				Fires []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal(tests, &file); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			if len(c.Fires) > 0 {
				fires[c.Alert] = true
			} else {
				quiet[c.Alert] = true
			}
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if !fires[r.Alert] || !quiet[r.Alert] {
				t.Errorf("%s is not tested: fires %t, does not fire %t", r.Alert, fires[r.Alert], quiet[r.Alert])
			}
		}
	}
}

// TestRunbooks checks that the runbook_url of each alert leads to its own section of docs/runbooks.md, with all parts, and that each
// section belongs to an alert.
func TestRunbooks(t *testing.T) {
	page, err := os.ReadFile("../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for section := range strings.SplitSeq(string(page), "\n## ") {
		heading, text, _ := strings.Cut(section, "\n")
		sections[heading] = text
	}
	const site = "https://github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/blob/main/"
	var alerts []string
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			if want := fmt.Sprintf("%sdocs/runbooks.md#%s", site, strings.ToLower(r.Alert)); r.Annotations["runbook_url"] != want {
				t.Errorf("%s: runbook_url %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
			}
			for _, part := range []string{"**Meaning.** ", "**Check.** ", "**Repair.** "} {
				if !strings.Contains(sections[r.Alert], part) {
					t.Errorf("the section %s has no part %q", r.Alert, part)
				}
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" ||
				!slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: summary, description or severity is missing", r.Alert)
			}
		}
	}
	for heading := range sections {
		if regexp.MustCompile(`^\w+$`).MatchString(heading) && !slices.Contains(alerts, heading) {
			t.Errorf("the section %s belongs to no alert", heading)
		}
	}
}

var updateAlerts = flag.Bool("update-alerts", false, "rewrite the table of alerts in docs/metrics.md")

// TestAlertsPage checks that docs/metrics.md lists the alerts as they are.
func TestAlertsPage(t *testing.T) {
	const page, begin, end = "../docs/metrics.md",
		"<!-- the table is made of the rules: go test ./manifests -run TestAlertsPage -update-alerts -->\n", "<!-- end of the table -->\n"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", page)
	}
	var want strings.Builder
	want.WriteString("| alert | severity | expression | for |\n| --- | --- | --- | --- |\n")
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			expr := strings.ReplaceAll(r.Expr, "|", `\|`) // a bar ends a cell, in code too
			fmt.Fprintf(&want, "| [%s](runbooks.md#%s) | %s | `%s` | %s |\n",
				strings.TrimPrefix(r.Alert, "MultiNetworkPolicy"), strings.ToLower(r.Alert), r.Labels["severity"], expr, cmp.Or(r.For, "at once"))
		}
	}
	if table == want.String() {
		return
	}
	if !*updateAlerts {
		t.Fatalf("the table differs from the rules; run with -update-alerts. Want:\n%s", want.String())
	}
	if err := os.WriteFile(page, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDashboard checks that Prometheus can parse each expression of the dashboard, and that IDs and places of panels are unique.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			GridPos struct{ H, W, X, Y int }
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	text, err := os.ReadFile("components/prometheus/dashboard.json")
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var records []record
	ids, places := map[int]bool{}, map[[2]int]bool{}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for _, p := range dashboard.Panels {
		place := [2]int{p.GridPos.X, p.GridPos.Y}
		if ids[p.ID] || places[place] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d, %s, at %v: ID or place is taken", p.ID, p.Title, place)
		}
		ids[p.ID], places[place] = true, true
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("panel %s: unknown variable in %s", p.Title, expr)
			}
			records = append(records, record{fmt.Sprintf("panel:%d_%d", p.ID, len(records)), expr})
		}
	}
	rules, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": records}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
