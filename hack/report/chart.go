package report

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Line is a line of a chart.
type Line struct {
	// Class chooses the color: blue, orange, purple or gray (dashed).
	Class, Label string
	Points       []Point
}

// Point is a point of a line. Both values are above 0. A hollow point was not measured, but extrapolated.
type Point struct {
	X, Y   float64
	Hollow bool `json:",omitempty"`
}

// Axis is a logarithmic scale. Low and High are powers of ten.
type Axis struct {
	Low, High float64
	Label     string // X only
	Unit      Unit
}

// Unit says how the labels of an axis are written.
type Unit string

// The units.
const (
	Number  Unit = "number"  // 10,000
	Seconds Unit = "seconds" // 10ms
)

// format returns the label of a power of ten.
func (u Unit) format(v float64) string {
	if u == Seconds {
		return time.Duration(math.Round(v * float64(time.Second))).String()
	}
	return Thousands(int(v))
}

// Chart is a picture of lines over two logarithmic axes.
type Chart struct {
	Title, Subtitle string
	X, Y            Axis
	Lines           []Line
}

// The size of the picture and the frame of the lines, in units of the picture.
const (
	pictureWidth, pictureHeight = 760, 420
	left, right, top, bottom    = 70, 540, 60, 370
)

// at returns the coordinate of a value on the scale between two coordinates.
func (a *Axis) at(v, from, to float64) float64 {
	low, high := math.Log10(a.Low), math.Log10(a.High)
	return from + (math.Log10(v)-low)/(high-low)*(to-from)
}

func (c *Chart) x(v float64) float64 { return c.X.at(v, left, right) }
func (c *Chart) y(v float64) float64 { return c.Y.at(v, bottom, top) } // the coordinates of SVG grow downwards

// Elements around the chart as JSON in its picture, so that the picture can be drawn again.
const beginData, endData = "<metadata>", "</metadata>\n"

// ReadChart returns the chart of a picture.
func ReadChart(svg string) (*Chart, error) {
	_, rest, _ := strings.Cut(svg, beginData)
	data, _, _ := strings.Cut(rest, endData)
	c := &Chart{}
	if err := json.Unmarshal([]byte(html.UnescapeString(data)), c); err != nil {
		return nil, fmt.Errorf("the data of the chart: %w", err)
	}
	return c, nil
}

// SVG returns the picture. The values of its points are rounded to three digits.
func (c *Chart) SVG() string {
	c = c.rounded()
	data, err := json.Marshal(c)
	if err != nil {
		panic(err) // numbers and texts can always be marshaled, but for infinite values
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13" role="img">`+"\n",
		pictureWidth, pictureHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n%s%s%s%s", c.Title, beginData, html.EscapeString(string(data)), endData, chartStyle)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d"/>`+"\n", pictureWidth, pictureHeight)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="28">%s</text>`+"\n", left, c.Title)
	fmt.Fprintf(&b, `<text class="muted" x="%d" y="46">%s</text>`+"\n", left, c.Subtitle)
	c.drawGrid(&b)
	c.drawLines(&b)
	b.WriteString("</svg>\n")
	return b.String()
}

// rounded returns the chart with values of three digits.
func (c *Chart) rounded() *Chart {
	round := func(v float64) float64 {
		short, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64) //nolint:errcheck // the text of a number is a number
		return short
	}
	next := *c
	next.Lines = slices.Clone(c.Lines)
	for i := range next.Lines {
		next.Lines[i].Points = slices.Clone(c.Lines[i].Points)
		for j, p := range next.Lines[i].Points {
			next.Lines[i].Points[j] = Point{p.X, round(p.Y), p.Hollow}
		}
	}
	return &next
}

// chartStyle follows the color scheme of the reader.
const chartStyle = `<style>
.paper { fill: #ffffff } text { fill: #1f2328 } .title { font-weight: 600; font-size: 15px } .muted { fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 } polyline { stroke-width: 2.5 }
.gray { stroke: #6e7781; fill: #6e7781; stroke-dasharray: 5 4 } .blue { stroke: #0969da; fill: #0969da }
.orange { stroke: #bc4c00; fill: #bc4c00 } .purple { stroke: #8250df; fill: #8250df }
polyline.gray, polyline.blue, polyline.orange, polyline.purple { fill: none }
circle { stroke-dasharray: none; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } text { fill: #f0f6fc } .muted { fill: #9198a1 } .grid { stroke: #3d444d }
.gray { stroke: #9198a1; fill: #9198a1 } .blue { stroke: #4493f8; fill: #4493f8 }
.orange { stroke: #f0883e; fill: #f0883e } .purple { stroke: #ab7df8; fill: #ab7df8 }
}
circle.hollow { fill: none }
</style>
`

// drawGrid draws a label for each power of ten of x, and a line with a label for each power of ten of y.
func (c *Chart) drawGrid(b *strings.Builder) {
	for v := range powers(c.X.Low, c.X.High) {
		fmt.Fprintf(b, `<text class="muted" x="%.0f" y="%d" text-anchor="middle">%s</text>`+"\n", c.x(v), bottom+20, c.X.Unit.format(v))
	}
	fmt.Fprintf(b, `<text class="muted" x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+right)/2, bottom+40, c.X.Label)
	for v := range powers(c.Y.Low, c.Y.High) {
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+"\n", left, right, c.y(v), c.y(v))
		fmt.Fprintf(b, `<text class="muted" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-8, c.y(v)+4, c.Y.Unit.format(v))
	}
}

// powers yields the powers of ten from low to high.
func powers(low, high float64) func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for i := math.Round(math.Log10(low)); i <= math.Round(math.Log10(high)); i++ {
			if !yield(math.Pow(10, i)) {
				return
			}
		}
	}
}

// drawLines draws the lines that have points. It writes the name of each line behind its end, and keeps the names apart.
func (c *Chart) drawLines(b *strings.Builder) {
	lines := slices.DeleteFunc(slices.Clone(c.Lines), func(l Line) bool { return len(l.Points) == 0 })
	end := func(l Line) float64 { return c.y(l.Points[len(l.Points)-1].Y) }
	slices.SortStableFunc(lines, func(a, b Line) int { return int(end(a) - end(b)) })
	// lineHeight is the least distance between two names. The lines are sorted from top to bottom, so a name moves
	// down only.
	const lineHeight = 18
	label := 0.0
	for _, l := range lines {
		var points []string
		for _, p := range l.Points {
			points = append(points, fmt.Sprintf("%.1f,%.1f", c.x(p.X), c.y(p.Y)))
		}
		fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`+"\n", l.Class, strings.Join(points, " "))
		for _, p := range l.Points {
			class := l.Class
			if p.Hollow {
				class += " hollow"
			}
			fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="3.5"/>`+"\n", class, c.x(p.X), c.y(p.Y))
		}
		label = max(label+lineHeight, end(l)+4)
		fmt.Fprintf(b, `<text x="%d" y="%.1f">%s</text>`+"\n", right+12, label, l.Label)
	}
}
