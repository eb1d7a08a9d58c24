package main

import (
	"context"
	"slices"
	"time"
)

// attack is an action of a tenant that could hurt other tenants.
type attack struct {
	// name stands in the first column of the report, and is matched by -run and -skip
	name string
	does string // a sentence
	// hold is how long the attack lasts after start has returned; 0: the flag -hold
	hold time.Duration
	// start makes the objects of the attack and starts its loops. The attack lasts until tenant.undo.
	// An error of start makes the attack count as broken, as it then tests less than it says.
	start func(ctx context.Context, t *tenant) error
	// quick attacks are run with -quick: an attack of each kind.
	quick bool
	// schema is the file of the CRD of policies. Empty: the published CRD.
	schema string
}

// holdTime is the default of the flag -hold.
const holdTime = 3 * time.Second

// attacks returns all attacks.
// The order is that of the page: attacks that hurt earlier versions, then policies, objects, pods, the kernel, and reports.
func attacks() []attack {
	return slices.Concat(issueAttacks(), policyAttacks(), objectAttacks(), podAttacks(), kernelAttacks(), reportAttacks())
}
