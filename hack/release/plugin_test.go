package main

import (
	"bytes"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
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

// testPlatforms are the platforms that TestRelease builds the plugin for. Each platform more takes two minutes of CPU time if the build
// cache is empty. The release builds the other platforms too.
var testPlatforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}, {"windows", "amd64"}}

// testPlugin checks the archives of the kubectl plugin, and the manifest for krew.
func testPlugin(t *testing.T, dir string) {
	bins := checkKrew(t, dir, testPlatforms)
	for p, bin := range bins {
		archive := pluginArchive(p)
		content := untar(t, gunzip(t, read(t, dir, archive)))
		if got, err := platformOf([]byte(content[bin])); err != nil || got != p {
			t.Errorf("%s: %s is a program for %v, %v", archive, bin, got, err)
		}
		if content["LICENSE"] == "" || len(content) != 2 {
			t.Errorf("%s has %d files, or no license", archive, len(content))
		}
	}
}

// TestKrew checks the manifest for krew with all platforms, without programs in the archives.
func TestKrew(t *testing.T) {
	r := release{out: t.TempDir(), version: testVersion, plugin: pluginPlatforms()}
	for _, p := range r.plugin {
		write(t, r.file(pluginArchive(p)), pluginArchive(p))
	}
	if err := r.writeKrew(); err != nil {
		t.Fatal(err)
	}
	checkKrew(t, r.out, []platform{
		{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}, {"windows", "arm64"},
	})
}

// checkKrew checks the manifest by the rules of krew's index (https://krew.sigs.k8s.io/docs/developer-guide). It must have exactly the
// given platforms. It returns the name of the program for each platform.
func checkKrew(t *testing.T, dir string, want []platform) map[platform]string {
	t.Helper()
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
	bins := map[platform]string{}
	for _, p := range s.Platforms {
		labels := p.Selector.MatchLabels
		of := platform{labels["os"], labels["arch"]}
		if len(labels) != 2 || bins[of] != "" {
			t.Errorf("labels %v", labels)
		}
		bins[of] = p.Bin
		address, err := url.Parse(p.URI)
		if err != nil || address.Scheme != "https" || !strings.HasSuffix(path.Dir(address.Path), "/releases/download/"+testVersion) {
			t.Fatalf("address %q, %v", p.URI, err)
		}
		archive := path.Base(address.Path)
		if want := fmt.Sprintf("kubectl-mnp-%s-%s.tar.gz", of.os, of.arch); archive != want {
			t.Errorf("archive %s, want %s", archive, want)
		}
		sum, err := checksum(filepath.Join(dir, archive))
		if err != nil || sum != p.SHA256 || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(sum) {
			t.Errorf("%s: checksum %s, want %s, %v", archive, p.SHA256, sum, err)
		}
		if want := map[bool]string{true: "kubectl-mnp.exe", false: "kubectl-mnp"}[of.os == "windows"]; p.Bin != want {
			t.Errorf("%s has the program %s, want %s", archive, p.Bin, want)
		}
	}
	for _, p := range want {
		if bins[p] == "" {
			t.Errorf("%v is missing", p)
		}
	}
	if len(bins) != len(want) {
		t.Errorf("platforms %v, want %v", bins, want)
	}
	return bins
}

// platformOf returns the platform of a program: ELF is for Linux, Mach-O for macOS, PE for Windows. A program for macOS must have a UUID.
func platformOf(data []byte) (platform, error) {
	r := bytes.NewReader(data)
	file, errELF := elf.NewFile(r)
	if errELF == nil {
		return platform{"linux", map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[file.Machine]}, nil
	}
	mach, errMach := macho.NewFile(r)
	if errMach == nil {
		const uuid = 0x1b // LC_UUID, mach-o/loader.h
		if !slices.ContainsFunc(mach.Loads, func(l macho.Load) bool { return mach.ByteOrder.Uint32(l.Raw()) == uuid }) {
			return platform{}, errors.New("the program has no LC_UUID")
		}
		return platform{"darwin", map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[mach.Cpu]}, nil
	}
	exe, errPE := pe.NewFile(r)
	if errPE == nil {
		return platform{"windows", map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}[exe.Machine]}, nil
	}
	return platform{}, errors.Join(errELF, errMach, errPE)
}
