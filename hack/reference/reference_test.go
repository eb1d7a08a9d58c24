package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the reference pages")

// TestPages compares the reference pages with the code.
func TestPages(t *testing.T) {
	made, err := pages("../..")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := write("../.."); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range made {
		got, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), want); diff != "" {
			t.Errorf("docs/%s differs from the code; run with -update (-page +code):\n%s", name, diff)
		}
	}
}

// TestMissing adds code to the agent that a page would not describe, and expects an error that names it.
func TestMissing(t *testing.T) {
	for _, test := range []struct{ name, code, want string }{
		{"reason", `events.Warn(informers.Subject{}, "Added", "")`, `cache/policy/reason.go lacks the reason "Added"`},
		{"reason that is not constant", `events.Warn(informers.Subject{}, policy.Reason("Bad"+key), "")`, "a reason is not a constant"},
		{
			"annotation of an interface", `_ = object.GetAnnotations()["example.org/added"]`,
			"describe the annotation example.org/added in hack/reference/annotations.go",
		},
		{
			"annotation that is written", `pod.Annotations = map[string]string{"example.org/added": ""}`,
			"describe the annotation example.org/added in hack/reference/annotations.go",
		},
		{"annotation that is not constant", `_ = pod.Annotations[key]`, "the name of an annotation is not a constant"},
		{"all annotations", `for range pod.Annotations { }`, "a loop over all annotations"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file, err := filepath.Abs("../../internal/agent/added.go")
			if err != nil {
				t.Fatal(err)
			}
			code := `package agent

import (
	corev1 "k8s.io/api/core/v1"

	"` + module + `/cache/policy"
	"` + module + `/informers"
)

func added(_ policy.Reason, events informers.EventSink, pod *corev1.Pod, object interface{ GetAnnotations() map[string]string }, key string) {
	` + test.code + `
}
`
			s, err := load("../..", map[string][]byte{file: []byte(code)}, "./internal/agent", "./cache/policy")
			if err != nil {
				t.Fatal(err)
			}
			// Without the other packages, much of the tables is unused too.
			_, errEvents := eventsPage(s)
			_, errAnnotations := annotationsPage(s)
			want := "internal/agent/added.go:11: " + test.want
			if got := errors.Join(errEvents, errAnnotations); got == nil || !strings.Contains(got.Error(), want) {
				t.Errorf("got %v, want %s", got, want)
			}
		})
	}
}
