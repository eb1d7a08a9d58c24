// Package outage logs the loss and the return of an input: the API server, the container runtime, NRI. Callers report every
// failure and every success; the package logs only the changes.
//
//	Failed(err), Failed(err), … ─► log: first failure, then reminders at doubling intervals ─► notify(true)
//	Works()                     ─► log: works again, with the length of the outage          ─► notify(false)
package outage
