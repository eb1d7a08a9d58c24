// Package budget bounds how often something is logged or published for one object and for all objects of one namespace.
//
//	Allow(object, namespace) ──► token of the object? ──► token of the namespace? ──► yes, or no and counted
//
// Each object and each namespace has a bucket of tokens that fills up again over time. A namespace's bucket fills ten
// times as fast as an object's. Buckets that are full are forgotten, so the memory follows the activity.
package budget
