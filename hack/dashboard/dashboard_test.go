package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the picture of the dashboard")

// TestPicture compares docs/dashboard.svg with the dashboard and the recorded values.
func TestPicture(t *testing.T) {
	want, err := picture("../..")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := draw("../.."); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("../../" + pictureFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not the picture of the dashboard; run with -update", pictureFile)
	}
}

// TestPictureFollows changes the dashboard: the picture follows, and a query without recorded values is an error.
func TestPictureFollows(t *testing.T) {
	for _, test := range []struct{ old, new, want, wantErr string }{
		{`"Lost inputs"`, `"Inputs that are lost"`, ">Inputs that are lost</text>", ""},
		{"sum(multi_networkpolicy_watch_down{", "max(multi_networkpolicy_watch_down{", "", `panel "Lost inputs": ` + seriesFile + " has no values of max("},
	} {
		root := t.TempDir()
		for _, file := range []string{dashboardFile, seriesFile} {
			text, err := os.ReadFile("../../" + file)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), test.old, test.new)), 0o644); err != nil {
				t.Fatal(err)
			}
			if file == dashboardFile && !strings.Contains(string(text), test.old) {
				t.Fatalf("the dashboard has no %s", test.old)
			}
			if file == dashboardFile {
				continue
			}
			// The recorded values stay.
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := picture(root)
		if test.wantErr == "" && (err != nil || !strings.Contains(got, test.want)) {
			t.Errorf("%s: no %s, %v", test.new, test.want, err)
		}
		if test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
			t.Errorf("%s: got %v, want %s", test.new, err, test.wantErr)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct {
		value      float64
		unit, want string
	}{
		{0, "s", "0"}, {0.00025, "s", "250 µs"}, {0.012, "s", "12 ms"}, {3, "s", "3 s"}, {1536, "bytes", "1.5 KiB"}, {12, "short", "12"},
		{2500, "short", "2.5K"}, {1.5, "ops", "1.5 ops/s"},
	} {
		if got := format(test.value, test.unit); got != test.want {
			t.Errorf("%g %s: got %s, want %s", test.value, test.unit, got, test.want)
		}
	}
}
