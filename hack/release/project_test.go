package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// TestBuildTags checks that the other ways to build the image use the build tags of a release, or their programs would be larger.
func TestBuildTags(t *testing.T) {
	for _, name := range []string{"Dockerfile", "hack/image/build.sh"} {
		if text := string(read(t, "../..", name)); !strings.Contains(text, "go build -trimpath -tags "+buildTags+" ") {
			t.Errorf("%s does not build with the tags %s", name, buildTags)
		}
	}
}

// TestAgentDependencies checks that the program does not link the libraries of this command, nor the clients of all API groups.
func TestAgentDependencies(t *testing.T) {
	r := &release{root: filepath.Join("..", "..")}
	list, err := r.command(t.Context(), nil, "go", "list", "-deps", ".")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(list, "k8s.io/client-go/rest\n") {
		t.Fatal("no list of packages")
	}
	for _, foreign := range []string{
		"github.com/google/go-containerregistry", "sigs.k8s.io/kustomize", "github.com/spdx", "github.com/docker",
		"k8s.io/client-go/kubernetes", "github.com/google/gnostic-models",
	} {
		if strings.Contains(list, "\n"+foreign) {
			t.Errorf("the program links %s", foreign)
		}
	}
}

// TestWorkflow checks the rights of the release workflow: none by default, only reading for the job that runs the build, and a version
// for each action.
func TestWorkflow(t *testing.T) {
	var workflow struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			Permissions map[string]string
			Steps       []struct{ Uses, Run string }
		}
	}
	text := read(t, "../..", ".github/workflows/release.yml")
	if err := yaml.Unmarshal(text, &workflow); err != nil {
		t.Fatal(err)
	}
	rights := map[string]map[string]string{"": workflow.Permissions}
	for name, job := range workflow.Jobs {
		rights[name] = job.Permissions
		for _, step := range job.Steps {
			if step.Uses != "" && !regexp.MustCompile(`^[\w./-]+@v\d+$`).MatchString(step.Uses) {
				t.Errorf("%s: %q has no version", name, step.Uses)
			}
			if strings.Contains(step.Run, "${{") {
				t.Errorf("%s: the script %q contains an expression, which could contain a command", name, step.Run)
			}
		}
	}
	want := map[string]map[string]string{
		"":        {},
		"build":   {"contents": "read"},
		"publish": {"contents": "write", "packages": "write", "id-token": "write", "attestations": "write"},
	}
	if diff := cmp.Diff(want, rights); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}
