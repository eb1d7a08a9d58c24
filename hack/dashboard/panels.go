package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// dashboard is the part of a Grafana dashboard that the picture shows.
type dashboard struct {
	Title  string
	Panels []panel
}

// panel is a row, a stat or a time series. GridPos is in the units of Grafana: 24 columns in the width.
type panel struct {
	Type, Title string
	GridPos     struct{ H, W, X, Y float64 }
	Targets     []target
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct{ Steps []threshold }
		}
	}
}

// target is a query. LegendFormat names its series, with labels as {{name}}.
type target struct{ Expr, LegendFormat string }

// threshold is the color of values from Value on; nil: of all values.
type threshold struct {
	Color string
	Value *float64
}

// series is the recording of all queries.
type series struct {
	Recorded string              // date and kernel
	Start    time.Time           // of the first values
	Step     float64             // seconds between two values
	Queries  map[string][]values // by the expression in the dashboard
}

// values are those of a series, in order. A nil value is missing.
type values struct {
	Labels map[string]string
	Values []*float64
}

// readJSON reads a file below root.
func readJSON(root, file string, into any) error {
	text, err := os.ReadFile(filepath.Join(root, file))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// expression returns the query of a target, with the variables of Grafana replaced: all nodes, and the interval of rates.
func (t target) expression() string {
	return strings.NewReplacer("$instance", ".*", "$__rate_interval", rateInterval.String()).Replace(t.Expr)
}

// legend returns the name of a series.
func (t target) legend(labels map[string]string) string {
	name := t.LegendFormat
	for label, value := range labels {
		name = strings.ReplaceAll(name, "{{"+label+"}}", value)
	}
	return name
}
