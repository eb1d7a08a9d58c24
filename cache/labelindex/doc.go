// Package labelindex compiles label selectors and finds, among many selectors, those that may match an object.
//
//	selector ──Compile──► Selector ──Add──► Index ◄──Candidates── labels of an object
//
// The package knows neither policies nor pods. Selectors and label sets are immutable and may be shared; an Index has no
// lock of its own.
package labelindex
