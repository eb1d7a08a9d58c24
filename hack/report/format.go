package report

import (
	"fmt"
	"slices"
	"time"
)

// Samples are durations of the same measured event.
type Samples []time.Duration

// Percentile returns the smallest sample that at least p percent of the samples do not exceed (nearest rank), or 0 without
// samples.
func (s Samples) Percentile(p int) time.Duration {
	if len(s) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(s))[max(0, (len(s)*p+99)/100-1)]
}

// enoughForP99 is the number of samples from which on p99 is not one of the three largest samples.
const enoughForP99 = 300

// Tail formats the slow end of the samples: their p99, or the largest sample if there are too few.
func (s Samples) Tail() string {
	if len(s) < enoughForP99 {
		return "max " + Duration(s.Percentile(100))
	}
	return Duration(s.Percentile(99))
}

// Duration formats a duration with two or three significant digits: 9.1 µs, 91 µs, 910 µs, 9.1 ms.
func Duration(d time.Duration) string {
	us := float64(d.Nanoseconds()) / 1e3
	switch {
	case us < 10:
		return fmt.Sprintf("%.1f µs", us)
	case us < 1e3:
		return fmt.Sprintf("%.0f µs", us)
	case us < 1e4:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us < 1e6:
		return fmt.Sprintf("%.0f ms", us/1e3)
	}
	return fmt.Sprintf("%.1f s", us/1e6)
}

// Bytes formats a number of bytes in units of 1,000.
func Bytes(n uint64) string {
	switch {
	case n < 1e4:
		return fmt.Sprintf("%d B", n)
	case n < 1e7:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	case n < 1e10:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.0f GB", float64(n)/1e9)
}

// Ratio formats a factor: 1.17x, 91x.
func Ratio(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.2fx", x)
	}
	return fmt.Sprintf("%.0fx", x)
}

// Thousands formats a number with commas: 1,000,000.
func Thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return Thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

// Target formats a figure that has a target: as it is if it meets the target, or else with the target that it misses.
func Target(text string, got, most time.Duration) string {
	if got <= most {
		return text
	}
	return fmt.Sprintf("%s (misses %s)", text, Duration(most))
}
