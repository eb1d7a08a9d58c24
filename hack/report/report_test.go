package report

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTailNeedsSamples(t *testing.T) {
	few := Samples{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}
	if got := few.Tail(); got != "max 3.0 ms" {
		t.Errorf("few samples: %s", got)
	}
	many := make(Samples, 400)
	for i := range many {
		many[i] = time.Duration(i+1) * time.Microsecond
	}
	if got := many.Tail(); got != "396 µs" {
		t.Errorf("400 samples: %s", got)
	}
	if got := many.Percentile(50); got != 200*time.Microsecond {
		t.Errorf("median %s", got)
	}
}

func TestWriteNeedsMarkers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	const page = "a\n<!-- x: one -->\nold\n<!-- end: one -->\nb\n"
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(file, "x", []Section{{"one", "new\n"}, {"two", "new\n"}}); err == nil {
		t.Error("a section without markers is no error")
	}
	read := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if read() != page {
		t.Error("an error changed the page")
	}
	if err := Write(file, "x", []Section{{"one", "new\n"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := read(), strings.Replace(page, "old", "new", 1); got != want {
		t.Errorf("got %q", got)
	}
}

func TestMachineIsBusy(t *testing.T) {
	got, err := busyTime("cpu  100 20 30 400 50 6 7 80 9 10\ncpu0 1 2 3\n")
	if want := 2430 * time.Millisecond; err != nil || got != want {
		t.Errorf("busy for %s, %v; want %s", got, err, want)
	}
	if _, err := busyTime("intr 1"); err == nil {
		t.Error("a page without processor times is no error")
	}
	if err := (Machine{Others: 0.5}).Quiet(); !errors.Is(err, ErrBusy) {
		t.Errorf("half a core: %v", err)
	}
	if err := (Machine{Others: 0.01}).Quiet(); err != nil {
		t.Error(err)
	}
}

func TestTargetNamesMiss(t *testing.T) {
	if got := Target("1.5 ms", 1500*time.Microsecond, time.Millisecond); got != "1.5 ms (misses 1.0 ms)" {
		t.Error(got)
	}
	if got := Target("0.5 ms", 500*time.Microsecond, time.Millisecond); got != "0.5 ms" {
		t.Error(got)
	}
}

// TestCharts draws the pictures of the documents again, from their data.
func TestCharts(t *testing.T) {
	for _, file := range []string{"../../docs/latency.svg", "../../docs/scale.svg"} {
		svg, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ReadChart(string(svg))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(c.Lines) < 2 || len(c.Lines[0].Points) < 2 {
			t.Errorf("%s: not a chart: %+v", file, c)
		}
		if diff := cmp.Diff(c.SVG(), string(svg)); diff != "" {
			t.Errorf("%s is not the picture of its data; draw it again (-want +got):\n%s", file, diff)
		}
	}
}

func TestChartMarksExtrapolation(t *testing.T) {
	c := Chart{
		Title: "t", X: Axis{Low: 1, High: 100, Unit: Number}, Y: Axis{Low: 1, High: 10, Unit: Seconds},
		Lines: []Line{{Class: "blue", Label: "heap", Points: []Point{{X: 1, Y: 1}, {X: 100, Y: 10, Hollow: true}}}},
	}
	svg := c.SVG()
	for _, want := range []string{`<circle class="blue" cx="70.0" cy="370.0"`, `<circle class="blue hollow" cx="540.0" cy="60.0"`, ">heap</text>"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the chart lacks %s", want)
		}
	}
}
