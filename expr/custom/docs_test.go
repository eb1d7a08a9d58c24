package custom

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/sets"
)

const page = "../../docs/custom-rules.md"

// TestDocs checks that the examples in the documentation are valid rules for the family in the name of their file, and that the
// page lists every service.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```nft\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) < 4 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, b := range blocks {
		family := sets.V4
		if strings.HasPrefix(string(b[1]), "# custom-v6-") {
			family = sets.V6
		}
		r, err := Parse("example", strings.NewReader(string(b[1])), family)
		if err != nil || len(r.Rules) == 0 {
			t.Errorf("%v in\n%s", err, b[1])
		}
	}
	for name := range services {
		if !regexp.MustCompile(`[ \n]` + name + `[,.]`).Match(text) {
			t.Errorf("service %s is not on the page", name)
		}
	}
}

// TestServices compares the services with the machine's names for ports, where it has such names.
func TestServices(t *testing.T) {
	file, err := os.Open("/etc/services")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("SKIPPED: no /etc/services on this machine")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	known := map[string]map[string]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		port, _, _ := strings.Cut(fields[1], "/")
		if known[fields[0]] == nil {
			known[fields[0]] = map[string]bool{}
		}
		known[fields[0]][port] = true
	}
	for name, port := range services {
		if ports := known[name]; len(ports) > 0 && !ports[strconv.Itoa(int(port))] {
			t.Errorf("%s is port %d here, and %v on this machine", name, port, ports)
		}
	}
}
