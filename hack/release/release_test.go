package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"sigs.k8s.io/yaml"
)

const testVersion = "v1.2.3-rc.1"

// maxBinary bounds the size of a program, in bytes. Before you raise it, find out which dependency has grown: see docs/release.md.
const maxBinary = 27_000_000

// TestRelease builds a release in two folders, each from its own checkout, and compares all files. Then it checks the files.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the test takes a minute and was run with -short")
	}
	first, second := buildCopy(t), buildCopy(t)
	names := files(t, first)
	if diff := cmp.Diff(names, files(t, second)); diff != "" {
		t.Fatalf("files of the two releases (-first +second):\n%s", diff)
	}
	for _, name := range names {
		if !bytes.Equal(read(t, first, name), read(t, second, name)) {
			t.Errorf("%s differs", name)
		}
	}
	for name, test := range map[string]func(*testing.T, string){
		"binaries": testBinaries, "image": testImage, "install": testInstall, "checksums": testChecksums, "sbom": testSBOM,
		"man": testManPages, "completions": testCompletions, "chart": testChart, "plugin": testPlugin, "changes": testChanges,
	} {
		t.Run(name, func(t *testing.T) { test(t, first) })
	}
}

// buildCopy builds a release from a new checkout in a folder of its own, with the work tree's changes. It returns the folder of the
// release.
func buildCopy(t *testing.T) string {
	t.Helper()
	root, out := filepath.Join(t.TempDir(), "checkout"), t.TempDir()
	git(t, "../..", "clone", "-q", "--no-checkout", ".", root)
	for _, name := range strings.Split(strings.TrimRight(git(t, "../..", "ls-files", "-co", "--exclude-standard", "-z"), "\x00"), "\x00") {
		if to, err := os.Readlink(filepath.Join("../..", name)); err == nil {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755), os.Symlink(to, filepath.Join(root, name))); err != nil {
				t.Fatal(err)
			}
			continue
		}
		data, err := os.ReadFile(filepath.Join("../..", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, but not yet in the index
		} else if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, name), string(data))
	}
	r, err := newRelease(t.Context(), root, out, testVersion)
	if err != nil {
		t.Fatal(err)
	}
	r.plugin = testPlatforms
	if err := r.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

func testBinaries(t *testing.T, dir string) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, arch := range architectures {
		file, err := elf.Open(filepath.Join(dir, binaryName(arch)))
		if err != nil {
			t.Fatal(err)
		}
		if file.Machine != machines[arch] {
			t.Errorf("%s is for %v", arch, file.Machine)
		}
		for _, p := range file.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is not static: it has %v", arch, p.Type)
			}
		}
		if size := len(read(t, dir, binaryName(arch))); size > maxBinary {
			t.Errorf("%s has %d bytes, more than %d", arch, size, maxBinary)
		}
	}
}

// testImage checks that both architectures have the program, and that the archive is the layout.
func testImage(t *testing.T, dir string) {
	tag, index, err := readImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if tag.TagStr() != testVersion {
		t.Errorf("tag %s", tag.TagStr())
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != len(architectures) {
		t.Fatalf("%d images, %v", len(manifest.Manifests), err)
	}
	for i, d := range manifest.Manifests {
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		arch := architectures[i]
		if d.Platform.String() != "linux/"+arch || config.Architecture != arch {
			t.Errorf("%v for %s", d.Platform, config.Architecture)
		}
		if diff := cmp.Diff([]string{"/" + program}, config.Config.Entrypoint); diff != "" {
			t.Errorf("entry point (-want +got):\n%s", diff)
		}
		layers, err := image.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		content, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		if got := untar(t, content); len(got) != 1 || got[program] != string(read(t, dir, binaryName(arch))) {
			t.Errorf("%s: the layer is not the program alone", arch)
		}
	}

	unpacked := t.TempDir()
	for name, data := range untar(t, bytes.NewReader(read(t, dir, imageArchive))) {
		write(t, filepath.Join(unpacked, name), data)
	}
	archived, err := layout.ImageIndexFromPath(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	all, err := archived.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, d := range all.Manifests {
		if d.Digest != digest {
			t.Errorf("the archive has %s, want %s", d.Digest, digest)
		}
		named = append(named, d.Annotations["io.containerd.image.name"])
	}
	repository := tag.Repository.Name()
	if diff := cmp.Diff([]string{repository + ":" + testVersion, repository + "@" + digest.String()}, named); diff != "" {
		t.Errorf("names in the archive (-want +got):\n%s", diff)
	}
}

// testInstall checks that the manifests have the image of the release, and the same objects as kubectl makes of the folder.
func testInstall(t *testing.T, dir string) {
	tag, index, err := readImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name := range installations {
		kinds, images := map[string]int{}, []string{}
		for _, text := range strings.Split(string(read(t, dir, name)), "\n---\n") {
			var o struct {
				Kind string
				Spec struct {
					Template struct {
						Spec struct{ Containers []struct{ Image string } }
					}
				}
			}
			if err := yaml.Unmarshal([]byte(text), &o); err != nil {
				t.Fatal(err)
			}
			kinds[o.Kind]++
			for _, c := range o.Spec.Template.Spec.Containers {
				images = append(images, c.Image)
			}
		}
		if diff := cmp.Diff([]string{tag.Name() + "@" + digest.String()}, images); diff != "" {
			t.Errorf("%s: images (-want +got):\n%s", name, diff)
		}
		for _, kind := range []string{"CustomResourceDefinition", "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"} {
			if kinds[kind] == 0 {
				t.Errorf("%s has no %s", name, kind)
			}
		}
	}
}

func testChecksums(t *testing.T, dir string) {
	out, err := exec.Command("sh", "-c", "cd \"$0\" && sha256sum --check --strict --quiet SHA256SUMS", dir).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, name := range files(t, dir) {
		if !strings.Contains(name, "/") && name != "SHA256SUMS" && !strings.Contains(string(read(t, dir, "SHA256SUMS")), "  "+name+"\n") {
			t.Errorf("SHA256SUMS lacks %s", name)
		}
	}
}

func testManPages(t *testing.T, dir string) {
	pages := untar(t, gunzip(t, read(t, dir, "man.tar.gz")))
	if !strings.Contains(pages[program+".8"], ".SH SYNOPSIS") || len(pages) < 5 {
		t.Errorf("%d pages", len(pages))
	}
}

func testCompletions(t *testing.T, dir string) {
	scripts := untar(t, gunzip(t, read(t, dir, "completions.tar.gz")))
	for shell, name := range completionFiles {
		if !strings.Contains(scripts[shell+"/"+name], "__complete") {
			t.Errorf("%s has %q", shell, scripts[shell+"/"+name])
		}
	}
}

func testChart(t *testing.T, dir string) {
	charts, err := filepath.Glob(filepath.Join(dir, "*-1.2.3-rc.1.tgz"))
	if err != nil || len(charts) != 1 {
		t.Fatalf("charts %q, %v", charts, err)
	}
	folder, _, _ := strings.Cut(filepath.Base(charts[0]), "-1.2.3")
	content := untar(t, gunzip(t, read(t, dir, filepath.Base(charts[0]))))
	var chart struct{ Name, Version, AppVersion string }
	if err := yaml.Unmarshal([]byte(content[folder+"/Chart.yaml"]), &chart); err != nil {
		t.Fatal(err)
	}
	if chart.Name != folder || chart.Version != "1.2.3-rc.1" || chart.AppVersion != testVersion {
		t.Errorf("the chart is %+v in %s", chart, folder)
	}
	// The second file is a link in the work tree.
	for _, name := range []string{"templates/daemonset.yaml", "files/base/daemonset.yaml"} {
		if content[folder+"/"+name] == "" {
			t.Errorf("the chart lacks %s", name)
		}
	}
}

func testChanges(t *testing.T, dir string) {
	got := string(read(t, dir, "CHANGES.md"))
	if !strings.HasPrefix(got, "# "+program+" "+testVersion+"\n\n### ") {
		t.Errorf("changes:\n%.200s", got)
	}
}

// TestChangesSinceTag checks that the commits since the tag before are listed, whether or not the release has its tag.
func TestChangesSinceTag(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "CHANGELOG.md"), "# Changelog\n\n## Unreleased\n\n- New.\n\n## [1.0.0] - 2026-01-01\n\n- Old.\n")
	git(t, dir, "init", "-q")
	for _, tag := range []string{"v1.0.0", "v1.1.0"} {
		for _, subject := range []string{"first of " + tag, "second of " + tag} {
			git(t, dir, "-c", "user.name=a", "-c", "user.email=a@example.test", "commit", "-q", "--allow-empty", "-m", subject)
		}
		git(t, dir, "tag", tag)
	}
	r, err := newRelease(t.Context(), dir, t.TempDir(), "v1.1.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.writeChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := string(read(t, r.out, "CHANGES.md"))
	for text, want := range map[string]bool{
		"- New.": true, "- Old.": false, "## Commits since v1.0.0": true, "second of v1.1.0": true, "first of v1.1.0": true, "of v1.0.0": false,
	} {
		if strings.Contains(got, text) != want {
			t.Errorf("%q is there: %v\n%s", text, !want, got)
		}
	}
	if got := section("## Unreleased\n\n- New.\n\n## [1.0.0] - 2026-01-01\n\n- Old.\n", "v1.0.0"); got != "- Old." {
		t.Errorf("section of a released version: %q", got)
	}
	if got := section("## 1.0.0-rc.1\n\n- Early.\n\n## Unreleased\n\n- New.\n", "v1.0.0"); got != "- New." {
		t.Errorf("section of a version with only a candidate: %q", got)
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.2.3": true, "v0.1.0-rc.1": true, "1.2.3": false, "v1.2": false, "v1.2.3+build": false, "v01.2.3": false, "latest": false, "": false,
		"v1.2.3 -X": false,
	} {
		if isVersion(version) != want {
			t.Errorf("%q is a version: %v", version, !want)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "old"), "")
	if _, err := newRelease(t.Context(), "../..", dir, testVersion); err == nil {
		t.Error("a folder with files is taken")
	}
}

// files returns the paths of all regular files below a folder, in lexical order.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "git", append([]string{"-C", dir}, args...)...).Output()
	if err != nil {
		t.Fatalf("git %q: %v", args, err)
	}
	return string(out)
}

func gunzip(t *testing.T, data []byte) io.Reader {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// untar returns the content of the regular files in a tar, by name.
func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			all[h.Name] = string(data)
		}
		if h.Uid != 0 || h.Uname != "" {
			t.Error(fmt.Errorf("%s belongs to %d %s", h.Name, h.Uid, h.Uname))
		}
	}
}
