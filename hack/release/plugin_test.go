package main

import (
	"bytes"
	"debug/elf"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// krewManifest has the fields that krew requires or allows and the project uses.
type krewManifest struct {
	APIVersion, Kind string
	Metadata         struct{ Name string }
	Spec             struct {
		Version, Homepage, ShortDescription, Description string
		Platforms                                        []struct {
			URI, SHA256, Bin string
			Selector         struct{ MatchLabels map[string]string }
		}
	}
}

// testPlugin checks the archives of the kubectl plugin, and the manifest by the rules of krew's index
// (https://krew.sigs.k8s.io/docs/developer-guide).
func testPlugin(t *testing.T, dir string) {
	var m krewManifest
	if err := yaml.UnmarshalStrict(read(t, dir, "krew-mnp.yaml"), &m); err != nil {
		t.Fatal(err)
	}
	s := m.Spec
	switch {
	case m.APIVersion != "krew.googlecontainertools.github.com/v1alpha2", m.Kind != "Plugin":
		t.Errorf("%s %s", m.APIVersion, m.Kind)
	case m.Metadata.Name != "mnp", s.Version != testVersion, !isVersion(s.Version), s.Description == "", !strings.HasPrefix(s.Homepage, "https://"):
		t.Errorf("incomplete: %+v", m)
	case s.ShortDescription == "", len(s.ShortDescription) > 50, strings.ContainsAny(s.ShortDescription, "\n."):
		t.Errorf("short description %q", s.ShortDescription)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, p := range s.Platforms {
		arch := p.Selector.MatchLabels["arch"]
		address, err := url.Parse(p.URI)
		if err != nil || address.Scheme != "https" || !strings.HasSuffix(path.Dir(address.Path), "/releases/download/"+testVersion) {
			t.Fatalf("address %q, %v", p.URI, err)
		}
		archive := path.Base(address.Path)
		sum, err := checksum(dir + "/" + archive)
		if err != nil || sum != p.SHA256 || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(sum) {
			t.Errorf("%s: checksum %s, want %s, %v", archive, p.SHA256, sum, err)
		}
		content := untar(t, gunzip(t, read(t, dir, archive)))
		binary, err := elf.NewFile(bytes.NewReader([]byte(content[p.Bin])))
		if err != nil || binary.Machine != machines[arch] || p.Selector.MatchLabels["os"] != "linux" {
			t.Errorf("%s has no program %s for %s: %v", archive, p.Bin, arch, err)
		}
		if content["LICENSE"] == "" {
			t.Errorf("%s has no license", archive)
		}
		delete(machines, arch)
	}
	if len(machines) > 0 {
		t.Errorf("architectures without a platform: %v", machines)
	}
}
