package policy

import (
	"fmt"
	"strings"
)

// Problem is the reason why a field of an object allows nothing, for logs, Events and explanations.
type Problem struct {
	Field   string // as a path: spec.ingress[0].from[1].ipBlock.cidr
	Message string
}

// String returns the field and the message.
func (p Problem) String() string { return p.Field + ": " + p.Message }

// MaxProblems is the maximum number of listed problems of an object. Further problems are only counted, so that an object with
// many mistakes floods neither the log nor the memory of the agent.
const MaxProblems = 20

// Problems collects the problems of an object in the order of its fields. The zero value is ready for use.
// It is not safe for concurrent use.
type Problems struct {
	list []Problem
	more int // number of problems that are not in the list
}

// Add adds a problem. It formats the message only if the problem is listed.
func (p *Problems) Add(field, format string, args ...any) {
	if p.isFull() {
		p.more++
		return
	}
	p.list = append(p.list, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

// isFull reports whether further problems are only counted.
func (p *Problems) isFull() bool { return len(p.list) == MaxProblems }

// Append adds the problems of another collection.
func (p *Problems) Append(q Problems) {
	for _, problem := range q.list {
		p.Add(problem.Field, "%s", problem.Message)
	}
	p.more += q.more
}

// List returns the listed problems, and a last problem with the number of the others if there are any.
// The caller must not change the list.
func (p *Problems) List() []Problem {
	if p.more == 0 {
		return p.list
	}
	field, _, _ := strings.Cut(p.list[0].Field, ".")
	return append(p.list[:len(p.list):len(p.list)],
		Problem{Field: field, Message: fmt.Sprintf("has %d more problems, which are not listed", p.more)})
}

// maxQuote is the maximum length of a user's text in a message, in bytes.
const maxQuote = 80

// Quote quotes a user's text for a message, and shortens a long text.
// Control characters are escaped, so that a text cannot forge a line of a log.
func Quote(s string) string {
	if len(s) > maxQuote {
		return fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(s[:maxQuote], ""), len(s))
	}
	return fmt.Sprintf("%q", s)
}
