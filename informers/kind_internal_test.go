package informers

import (
	"math"
	"testing"
	"time"
)

func TestDefinedSince(t *testing.T) {
	at := func(text string) int64 {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Unix()
	}
	const managers = `"managedFields": [{"manager": "a", "time": "2026-01-02T00:00:00Z"}, {"manager": "b", "time": "2026-01-03T00:00:00Z"}]`
	for name, c := range map[string]struct {
		metadata string
		want     int64
	}{
		"a manifest":                 {``, 0},
		"never edited":               {`"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, ` + managers, at("2026-01-01T00:00:00Z")},
		"edited":                     {`"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2, ` + managers, at("2026-01-03T00:00:00Z") + 1},
		"no generation":              {`"creationTimestamp": "2026-01-01T00:00:00Z", ` + managers, at("2026-01-03T00:00:00Z") + 1},
		"edited, nobody knows when":  {`"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2`, math.MaxInt64},
		"edited, unreadable manager": {`"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2, "managedFields": {}`, math.MaxInt64},
	} {
		o, err := parseObject([]byte(`{"metadata": {` + c.metadata + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := o.definedSince(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
