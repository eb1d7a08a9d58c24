package main

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"os"
	"strings"
)

// The sizes are in units of the picture. charWidth is the width of a character of a monospaced font with fontSize.
const (
	fontSize, lineHeight, charWidth = 14, 20, 8.43
	margin                          = 20
	tables                          = 1 // drawn of each part
)

func main() {
	lines, err := keep(os.Stdin)
	if err == nil {
		err = draw(os.Stdout, lines)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// keep returns the lines to draw.
// It drops tables beyond the first of each part of the demo, repeated empty lines, and the nftables table at the end.
func keep(in io.Reader) ([]string, error) {
	lines := []string{"$ go run . demo"}
	shown, inTable := 0, false
	s := bufio.NewScanner(in)
	for s.Scan() {
		line := s.Text()
		// Tables are indented by two blanks; other lines are titles and sentences.
		isTable := strings.HasPrefix(line, "  ")
		switch {
		case strings.HasPrefix(line, "The table in"):
			return lines, nil
		case !isTable && line != "":
			// A title begins a part, so its tables are counted anew.
			shown = 0
		case isTable && !inTable:
			shown++
		}
		inTable = isTable
		if line == "" && lines[len(lines)-1] == "" || isTable && shown > tables {
			continue
		}
		lines = append(lines, line)
	}
	return lines, s.Err()
}

// draw writes the picture. Check marks are green, crosses are red.
// Each line is a text of the SVG. The text is escaped first; the marks are then wrapped in colors.
func draw(out io.Writer, lines []string) error {
	widest := 0
	for _, l := range lines {
		widest = max(widest, len([]rune(l)))
	}
	var b strings.Builder
	width, height := 2*margin+int(float64(widest)*charWidth), 2*margin+len(lines)*lineHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="The demo, before and after its policies">
<rect width="100%%" height="100%%" rx="8" fill="#1b1f24"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="%d" fill="#d0d7de">
<style>text { white-space: pre }</style>
`, width, height, width, height, fontSize)
	colored := strings.NewReplacer("✔", `<tspan fill="#3fb950">✔</tspan>`, "✘", `<tspan fill="#f85149">✘</tspan>`)
	for i, l := range lines {
		if strings.TrimSpace(l) == "" {
			continue
		}
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\">%s</text>\n", margin, margin+fontSize+i*lineHeight, colored.Replace(html.EscapeString(l)))
	}
	b.WriteString("</g>\n</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}
