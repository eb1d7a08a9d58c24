package report

import (
	"fmt"
	"os"
	"strings"
)

// Section is a part of a report in Markdown. A document has it between two markers, which name the program and the section:
//
//	<!-- bench: latency -->
//	| peers | pods | …
//	<!-- end: latency -->
type Section struct{ Name, Text string }

// Write replaces the text between the markers of each section in the file. Other text stays. If the file lacks the markers of
// a section, Write returns an error and leaves the file unchanged.
func Write(file, program string, sections []Section) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(b)
	for _, s := range sections {
		from, to := fmt.Sprintf("<!-- %s: %s -->\n", program, s.Name), fmt.Sprintf("<!-- end: %s -->", s.Name)
		before, rest, ok := strings.Cut(text, from)
		_, after, closed := strings.Cut(rest, to)
		if !ok || !closed {
			return fmt.Errorf("%s has no markers for %s", file, s.Name)
		}
		text = before + from + s.Text + to + after
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// Table returns a table with aligned columns, readable as text and as Markdown. The first line is the heading.
func Table(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, text := range line {
			b.WriteString("| " + text + strings.Repeat(" ", widths[i]-len([]rune(text))) + " ")
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for _, width := range widths {
			b.WriteString("| " + strings.Repeat("-", width) + " ")
		}
		b.WriteString("|\n")
	}
	return b.String()
}
