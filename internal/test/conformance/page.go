package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"

	mnpv1 "github.com/k8snetworkplumbingwg/multi-networkpolicy/pkg/apis/k8s.cni.cncf.io/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// ReadPage reads the cases of a page of the documentation. The tables before the first numbered heading describe a
// cluster: the heading of their first column is Network, Namespace, Pod or Host. Each numbered heading is a case: its
// policies, in blocks of YAML, and a table of flows that are allowed or denied.
//
// So the examples of the documentation are tested against the kernel, and cannot become wrong unnoticed.
func ReadPage(path string) ([]Case, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sections := strings.Split("\n"+string(data), "\n## ")
	b := newBuilder()
	cluster, outsiders, err := b.cluster(tables(sections[0]))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var out []Case
	for _, s := range sections[1:] {
		title, body, _ := strings.Cut(s, "\n")
		// Other headings are about other matters.
		if title[0] < '0' || title[0] > '9' {
			continue
		}
		step, err := example(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, title, err)
		}
		// The cluster comes alone and unprobed, so that the policies of every example meet a settled cluster.
		out = append(out, Case{Name: title, Outsiders: outsiders, Steps: []Step{{Events: cluster, Quiet: true}, step}})
	}
	return out, nil
}

// tables returns the tables of a text in Markdown, each as rows of cells. The first row is the header. Backquotes are
// left out.
// The line of dashes below the header is left out.
func tables(text string) [][][]string {
	var out [][][]string
	inTable := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inTable = false
			continue
		}
		if strings.HasPrefix(line, "| ---") {
			continue
		}
		var row []string
		for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
			row = append(row, strings.ReplaceAll(strings.TrimSpace(cell), "`", ""))
		}
		if !inTable {
			out, inTable = append(out, nil), true
		}
		last := len(out) - 1
		out[last] = append(out[last], row)
	}
	return out
}

// cluster makes the events that create the cluster of a page. The rows are the short forms of the case files.
func (b *builder) cluster(tables [][][]string) (events []Event, outsiders []Outsider, err error) {
	var f stepFile
	for _, t := range tables {
		for _, row := range t[1:] {
			switch kind := t[0][0]; kind {
			case "Network": // name, type
				f.Networks = append(f.Networks, row[0]+" "+row[1])
			case "Namespace": // name, labels
				f.Namespaces = append(f.Namespaces, row[0]+" "+row[1])
			case "Pod": // name, labels, interfaces, named ports
				text := row[0] + " " + row[1]
				for _, iface := range strings.Split(row[2], ",") {
					text += " | " + iface
				}
				if row[3] != "" {
					text += " | port " + row[3]
				}
				f.Pods = append(f.Pods, text)
			case "Host": // wire, addresses
				found, err := parseOutsiders(row[0] + " " + row[1])
				if err != nil {
					return nil, nil, err
				}
				outsiders = append(outsiders, found...)
			default:
				return nil, nil, fmt.Errorf("a table of %q", kind)
			}
		}
	}
	step, err := b.step(f)
	return step.Events, outsiders, err
}

// example reads the section of a case: its policies, and the flows that they allow or deny.
// A flow is a row: From, To, Ports, and "allowed" or "denied".
func example(body string) (Step, error) {
	var s Step
	blocks := strings.Split(body, "```yaml\n")
	for _, block := range blocks[1:] {
		text, _, _ := strings.Cut(block, "```")
		for _, document := range strings.Split(text, "\n---\n") {
			policy := &mnpv1.MultiNetworkPolicy{}
			if err := yaml.UnmarshalStrict([]byte(document), policy); err != nil {
				return s, err
			}
			policy.UID = types.UID(policy.Namespace + "/" + policy.Name)
			s.Events = append(s.Events, Event{Put: policy})
		}
	}
	for _, t := range tables(body) {
		if !slices.Equal(t[0], []string{"From", "To", "Ports", ""}) {
			return s, fmt.Errorf("a table of %q", t[0])
		}
		for _, row := range t[1:] {
			if row[3] != "allowed" && row[3] != "denied" {
				return s, fmt.Errorf("%q is neither allowed nor denied", row[3])
			}
			e, err := parseExpectation(row[0]+" -> "+row[1]+" "+row[2], row[3] == "allowed")
			if err != nil {
				return s, err
			}
			s.Expect = append(s.Expect, e)
		}
	}
	// A section with a mistake in its markup would otherwise be a case that always passes.
	if len(s.Events) == 0 || len(s.Expect) == 0 {
		return s, fmt.Errorf("%d policies and %d flows", len(s.Events), len(s.Expect))
	}
	return s, nil
}
