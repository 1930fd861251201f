package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Plots are written by hand as SVG: a few rectangles and lines need no library.

const plotStyle = `<style>text{font:12px sans-serif;fill:#444}.title{font-weight:bold;fill:#222}.grid{stroke:#ddd}.line{fill:none;stroke-width:2}</style>`

var plotColors = []string{"#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b7791f", "#718096"}

// A bar is one case of a bar chart.
type bar struct {
	name  string
	value float64
	label string
	rival bool // not this cache
}

// bars draws one bar for each case, longest where the value is largest.
func bars(title string, all []bar) string {
	const left, right, step, top = 190, 130, 22, 40
	const width = 720
	height := top + step*len(all) + 10
	longest := 0.0
	for _, b := range all {
		longest = max(longest, b.value)
	}
	x := func(v float64) float64 { return left + v/longest*(width-left-right) }
	var s strings.Builder
	begin(&s, title, width, height)
	for i, b := range all {
		y := float64(top + i*step)
		color := plotColors[0]
		if b.rival {
			color = plotColors[5]
		}
		fmt.Fprintf(&s, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`, left-8, y+12, html.EscapeString(b.name))
		fmt.Fprintf(&s, `<rect x="%d" y="%.0f" width="%.1f" height="%d" fill="%s"/>`, left, y, x(b.value)-left, step-6, color)
		fmt.Fprintf(&s, `<text x="%.1f" y="%.0f">%s</text>`+"\n", x(b.value)+6, y+12, html.EscapeString(b.label))
	}
	return s.String() + "</svg>\n"
}

// A series is one line of a line chart.
type series struct {
	name   string
	points [][2]float64 // x, y
}

// lines draws lines over a logarithmic x axis.
func lines(title, xName string, all []series) string {
	const left, right, top, bottom, width, height = 70, 160, 40, 50, 720, 320
	lo, hi, highest := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range all {
		for _, p := range l.points {
			lo, hi, highest = min(lo, math.Log10(p[0])), max(hi, math.Log10(p[0])), max(highest, p[1])
		}
	}
	if hi == lo {
		hi++
	}
	unit := math.Pow(10, math.Floor(math.Log10(highest)))
	if highest/unit < 3 {
		unit /= 2
	}
	highest = math.Ceil(highest/unit) * unit
	x := func(v float64) float64 { return left + (math.Log10(v)-lo)/(hi-lo)*(width-left-right) }
	y := func(v float64) float64 { return height - bottom - v/highest*(height-top-bottom) }
	var s strings.Builder
	begin(&s, title, width, height)
	for v := 0.0; v <= highest*1.001; v += unit {
		fmt.Fprintf(&s, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, width-right, y(v), y(v), left-8, y(v)+4, v)
	}
	marked := make(map[float64]bool)
	for i, l := range all {
		color := plotColors[i%len(plotColors)]
		var points strings.Builder
		for _, p := range l.points {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(p[0]), y(p[1]))
			fmt.Fprintf(&s, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(p[0]), y(p[1]), color)
			if !marked[p[0]] {
				marked[p[0]] = true
				fmt.Fprintf(&s, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x(p[0]), height-bottom+18, thousands(p[0]))
			}
		}
		last := l.points[len(l.points)-1]
		fmt.Fprintf(&s, `<polyline class="line" stroke="%s" points="%s"/><text x="%.1f" y="%.1f">%s</text>`+"\n",
			color, strings.TrimSpace(points.String()), x(last[0])+8, y(last[1])+4, html.EscapeString(l.name))
	}
	fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="middle">%s</text>`, (left+width-right)/2, height-10, html.EscapeString(xName))
	return s.String() + "</svg>\n"
}

func begin(s *strings.Builder, title string, width, height int) {
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">%s`, width, height, width, height, plotStyle)
	fmt.Fprintf(s, `<rect width="100%%" height="100%%" fill="#fff"/><text class="title" x="10" y="22">%s</text>`+"\n", html.EscapeString(title))
}
