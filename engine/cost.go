package engine

import "time"

// What the kernel needs for parts of a batch. Measured on 6.18 with an AMD EPYC, rounded up.
const (
	costRule     = 12 * time.Microsecond // a rule, with its echo
	costRuleWalk = 12 * time.Nanosecond  // a rule of the chain that is passed over to find another one by its handle
)
