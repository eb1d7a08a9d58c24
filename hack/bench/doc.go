// Command bench measures the cost of changes and packets. It builds hack/bench/measure and runs it with the same arguments.
//
//	go run ./hack/bench ARGS ─► go build hack/bench/measure ─► bench ARGS ─► report
//
// hack/bench/measure is a separate Go module, since it also measures other projects, and the agent must not depend on their
// modules.
package main
