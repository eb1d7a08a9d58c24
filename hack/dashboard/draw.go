package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// Sizes of the picture, in pixels. A unit is that of Grafana's grid.
const (
	columns    = 24
	unitWidth  = 50
	unitHeight = 26
	gap        = 6  // between two panels
	padding    = 10 // in a panel
	titleSpace = 46 // above the panels
	axisWidth  = 52 // of the labels beside a diagram
	lineHeight = 15 // of the legend
)

// palette has the colors of the lines, readable on dark ground.
var palette = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#8ab8ff", "#f2495c", "#fade2a"}

// grafanaColors are the names of colors in thresholds.
var grafanaColors = map[string]string{"green": "#299c46", "red": "#d44a3a", "orange": "#ed8128", "yellow": "#c4a000", "blue": "#1f60c4"}

// canvas collects the picture.
type canvas struct{ text strings.Builder }

// printf adds elements.
func (c *canvas) printf(format string, args ...any) { fmt.Fprintf(&c.text, format, args...) }

// picture returns the picture of the dashboard below root, with the recorded values. A query that was not recorded is an error.
func picture(root string) (string, error) {
	var d dashboard
	var s series
	if err := readJSON(root, dashboardFile, &d); err != nil {
		return "", err
	}
	if err := readJSON(root, seriesFile, &s); err != nil {
		return "", err
	}
	height := 0.0
	for _, p := range d.Panels {
		height = max(height, p.GridPos.Y+p.GridPos.H)
	}
	var c canvas
	width, total := columns*unitWidth, titleSpace+int(height)*unitHeight+gap
	c.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" `+
		`font-size="12" fill="#ccccdc" role="img" aria-label="The dashboard of the agent">`+"\n", width, total, width, total)
	c.printf(`<rect width="%d" height="%d" fill="#111217"/>`+"\n", width, total)
	c.write(padding, 29, `font-size="18"`, d.Title)
	c.write(float64(width-padding), 29, `text-anchor="end" fill="#8e8e9a"`, s.Recorded)
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			if _, ok := s.Queries[t.Expr]; !ok {
				return "", fmt.Errorf("panel %q: %s has no values of %s", p.Title, seriesFile, t.Expr)
			}
		}
		c.panel(p, s)
	}
	c.printf("</svg>\n")
	return c.text.String(), nil
}

// write writes a text at a place, with attributes.
func (c *canvas) write(x, y float64, attributes, text string) {
	c.printf(`<text x="%.0f" y="%.0f" %s>%s</text>`+"\n", x, y, attributes, html.EscapeString(text))
}

// panel draws a panel at its place in the grid.
func (c *canvas) panel(p panel, s series) {
	x, y := p.GridPos.X*unitWidth, titleSpace+p.GridPos.Y*unitHeight
	w, h := p.GridPos.W*unitWidth, p.GridPos.H*unitHeight
	if p.Type == "row" {
		c.write(x+padding, y+h-8, `font-size="14"`, p.Title)
		return
	}
	fill := "#181b1f"
	if p.Type == "stat" {
		fill = p.color(s)
	}
	c.printf(`<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="3" fill="%s"/>`+"\n", x+gap/2, y+gap/2, w-gap, h-gap, fill)
	c.write(x+padding, y+20, "", p.Title)
	if p.Type == "stat" {
		c.write(x+w/2, y+h/2+22, `font-size="30" text-anchor="middle"`, p.last(s))
		return
	}
	c.diagram(p, s, x+padding+axisWidth, y+32, w-2*padding-axisWidth, h-32-gap)
}

// lastValue returns the last value of the first query of a stat; ok is false if it has none.
func (p panel) lastValue(s series) (last float64, ok bool) {
	for _, v := range s.Queries[p.Targets[0].Expr] {
		for _, value := range v.Values {
			if value != nil {
				last, ok = *value, true
			}
		}
	}
	return last, ok
}

// last returns the text of a stat.
func (p panel) last(s series) string {
	last, ok := p.lastValue(s)
	if !ok {
		return "No data"
	}
	return format(last, p.FieldConfig.Defaults.Unit)
}

// color returns the ground of a stat: that of the highest threshold that the value reaches.
func (p panel) color(s series) string {
	color := "#181b1f"
	last, ok := p.lastValue(s)
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if ok && (step.Value == nil || last >= *step.Value) {
			color = grafanaColors[step.Color]
		}
	}
	return color
}

// diagram draws the lines of a panel with axes and a legend into a frame.
func (c *canvas) diagram(p panel, s series, x, y, w, h float64) {
	type line struct {
		name   string
		values []*float64
	}
	var lines []line
	top := 0.0
	for _, t := range p.Targets {
		for _, v := range s.Queries[t.Expr] {
			lines = append(lines, line{t.legend(v.Labels), v.Values})
			for _, value := range v.Values {
				if value != nil {
					top = max(top, *value)
				}
			}
		}
	}
	if len(lines) == 0 {
		c.write(x+w/2-axisWidth/2, y+h/2, `text-anchor="middle" fill="#8e8e9a"`, "No data")
		return
	}
	// The legend wraps; its rows take the lower end of the frame.
	var legend canvas
	legendX, rows := x-axisWidth, 1.0
	for i, l := range lines {
		length := 24 + 6.4*float64(len([]rune(l.name)))
		if legendX+length > x+w && legendX > x-axisWidth {
			legendX, rows = x-axisWidth, rows+1
		}
		legend.printf(`<rect x="%.0f" y="%.0f" width="10" height="3" fill="%s"/>`+"\n", legendX, (rows-1)*lineHeight-4, palette[i%len(palette)])
		legend.write(legendX+14, (rows-1)*lineHeight, `font-size="11"`, l.name)
		legendX += length
	}
	h -= rows*lineHeight + lineHeight + 6
	c.printf(`<g transform="translate(0 %.0f)">`+"\n%s</g>\n", y+h+2*lineHeight+4, legend.text.String())
	top = ceiling(top)
	for i := range 3 {
		value := top * float64(i) / 2
		at := y + h - h*float64(i)/2
		c.printf(`<path d="M%.0f %.1fh%.0f" stroke="#2c3038"/>`+"\n", x, at, w)
		c.write(x-6, at+4, `text-anchor="end" font-size="11" fill="#8e8e9a"`, format(value, p.FieldConfig.Defaults.Unit))
	}
	steps := len(lines[0].values)
	for _, l := range lines {
		steps = max(steps, len(l.values))
	}
	for i := range 3 {
		at := time.Duration(float64(i) / 2 * float64(steps-1) * s.Step * float64(time.Second)).Round(time.Second)
		c.write(x+w*float64(i)/2, y+h+lineHeight, fmt.Sprintf(`text-anchor="%s" font-size="11" fill="#8e8e9a"`, []string{"start", "middle", "end"}[i]),
			fmt.Sprintf("%.3g min", at.Minutes()))
	}
	for i, l := range lines {
		c.printf(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", path(l.values, steps, top, x, y, w, h), palette[i%len(palette)])
	}
}

// path returns the line through values, in a frame whose upper end is top. A missing value interrupts the line.
func path(values []*float64, steps int, top, x, y, w, h float64) string {
	var b strings.Builder
	move := "M"
	for i, v := range values {
		if v == nil {
			move = "M"
			continue
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", move, x+w*float64(i)/float64(max(steps-1, 1)), y+h-h**v/top)
		move = "L"
	}
	return b.String()
}

// ceiling returns the least of 1, 2, 4, 5, 10 times a power of ten that is not below a value, and 1 for 0.
func ceiling(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, factor := range []float64{1, 2, 4, 5} {
		if v <= factor*power {
			return factor * power
		}
	}
	return 10 * power
}

// format returns a value with a unit of Grafana: short, s, ops or bytes.
func format(v float64, unit string) string {
	scaled := func(v float64, base float64, units ...string) string {
		i := 0
		for ; math.Abs(v) >= base && i < len(units)-1; i++ {
			v /= base
		}
		return fmt.Sprintf("%.3g%s", v, units[i])
	}
	switch {
	case v == 0:
		return "0"
	case unit == "s":
		return scaled(v*1e6, 1000, " µs", " ms", " s")
	case unit == "bytes":
		return scaled(v, 1024, " B", " KiB", " MiB", " GiB")
	case unit == "ops":
		return scaled(v, 1000, " ops/s", "K ops/s")
	}
	return scaled(v, 1000, "", "K", "M")
}
