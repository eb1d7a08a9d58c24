package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// varies matches the times in the demo's lines, and the width of the picture: the longest line has a time.
var varies = regexp.MustCompile(`\d+(\.\d+)?(µs|ms|s)\b|(viewBox="0 0 | width=")\d+`)

// TestDemoPicture runs the demo and draws it again: apart from times, the picture in the documents is that of the demo.
func TestDemoPicture(t *testing.T) {
	program := filepath.Join(t.TempDir(), "agent")
	if out, err := exec.Command("go", "build", "-o", program, "../..").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	demo := exec.Command(program, "demo")
	var output, errors bytes.Buffer
	demo.Stdout, demo.Stderr = &output, &errors
	if err := demo.Run(); err != nil {
		t.Fatalf("demo: %v: %s", err, &errors)
	}
	lines, err := keep(&output)
	if err != nil {
		t.Fatal(err)
	}
	var drawn bytes.Buffer
	if err := draw(&drawn, lines); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../../docs/demo.svg")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(varies.ReplaceAllString(drawn.String(), "…"), varies.ReplaceAllString(string(want), "…")); diff != "" {
		t.Errorf("docs/demo.svg is not the picture of the demo: run make picture (-want +got):\n%s", diff)
	}
}
