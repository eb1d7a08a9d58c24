package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/kustomize"
)

// yamlBlock matches a block of YAML in a page.
var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// TestDocumentedKustomizations builds the kustomizations with components that the pages show, and checks that docs/components.md has
// a row for each component.
func TestDocumentedKustomizations(t *testing.T) {
	names, err := kustomize.Components(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"../README.md", "../docs/components.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, block := range yamlBlock.FindAllStringSubmatch(string(text), -1) {
			var k struct{ Resources, Components []string }
			if yaml.Unmarshal([]byte(block[1]), &k) != nil || len(k.Components) == 0 {
				continue
			}
			found++
			var components []string
			for _, c := range k.Components {
				if filepath.Dir(c) != "multi-networkpolicy-nftables/manifests/components" {
					t.Errorf("%s: there is no %s", page, c)
				}
				components = append(components, filepath.Base(c))
			}
			if !slices.Equal(k.Resources, []string{"multi-networkpolicy-nftables/manifests"}) {
				t.Errorf("%s: resources %q", page, k.Resources)
			}
			if _, err := kustomize.Build(".", components, nil); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
		if found == 0 {
			t.Errorf("%s shows no kustomization with components", page)
		}
		if filepath.Base(page) != "components.md" {
			continue
		}
		for _, name := range names {
			if !strings.Contains(string(text), "\n| `"+name+"` | ") {
				t.Errorf("%s has no row for %s", page, name)
			}
		}
	}
}
