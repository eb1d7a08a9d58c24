//go:build !linux

package engine

// batch is empty: a Ruleset has no messages outside Linux, where no kernel takes them.
type batch struct{}
