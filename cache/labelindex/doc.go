// Package labelindex compiles label selectors and finds, among many selectors, the selectors that may match an object.
//
//	selector ──Compile──► Selector ──Add──► Index ◄──Candidates── labels of an object
//
// An Index keeps the cost of an event independent of the number of policies: when the labels of a pod or namespace change, only
// the selectors that may match are evaluated.
//
// The package knows neither policies nor pods. Selectors and label sets are immutable and may be shared between goroutines. An
// Index is not safe for concurrent use; the cache protects it by its lock.
package labelindex
