// Package outage logs the loss and the return of an input that the agent polls.
//
//	Failed(err), Failed(err), … ─► log: first failure, then reminders at doubling intervals ─► told(true)
//	Works()                     ─► log: works again, with the length of the outage          ─► told(false)
package outage
