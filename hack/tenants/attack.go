package main

import (
	"context"
	"slices"
	"time"
)

// attack is an action of a tenant that could hurt other tenants.
type attack struct {
	name string
	does string // a sentence
	hold time.Duration
	// start makes the objects of the attack and starts its loops. The attack lasts until tenant.undo.
	start func(ctx context.Context, t *tenant) error
	quick bool
	// schema is the file of the CRD of policies. Empty: the published CRD.
	schema string
}

// holdTime is how long an attack lasts after it has started, unless it says otherwise.
const holdTime = 3 * time.Second

// attacks returns all attacks.
func attacks() []attack {
	return slices.Concat(issueAttacks(), policyAttacks(), objectAttacks(), podAttacks(), kernelAttacks())
}
