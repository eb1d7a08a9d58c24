package policy

import (
	"fmt"
	"strings"
)

// Problem says why one field of an object allows nothing.
type Problem struct {
	Field   string // as a path: spec.ingress[0].from[1].ipBlock.cidr
	Message string
}

// String returns the field and the message.
func (p Problem) String() string { return p.Field + ": " + p.Message }

// MaxProblems is the number of problems that an object lists. The rest is only counted, so that an object with many
// mistakes fills neither a log nor the memory of an agent.
const MaxProblems = 20

// Problems collects the problems of one object in the order of its fields.
type Problems struct {
	list []Problem
	more int // found after the list was full
}

// Add notes a problem.
func (p *Problems) Add(field, format string, args ...any) {
	if p.isFull() {
		p.more++
		return
	}
	p.list = append(p.list, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

// isFull reports whether another problem is only counted.
func (p *Problems) isFull() bool { return len(p.list) == MaxProblems }

// Append adds the problems of another collection.
func (p *Problems) Append(q Problems) {
	for _, problem := range q.list {
		p.Add(problem.Field, "%s", problem.Message)
	}
	p.more += q.more
}

// List returns the problems. The last one counts those that are not listed.
func (p *Problems) List() []Problem {
	if p.more == 0 {
		return p.list
	}
	field, _, _ := strings.Cut(p.list[0].Field, ".")
	return append(p.list[:len(p.list):len(p.list)],
		Problem{Field: field, Message: fmt.Sprintf("has %d more problems, which are not listed", p.more)})
}

// maxQuote is the length of a user's text in a message, bytes.
const maxQuote = 80

// Quote quotes a user's text for a message, and cuts a long one.
func Quote(s string) string {
	if len(s) > maxQuote {
		return fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(s[:maxQuote], ""), len(s))
	}
	return fmt.Sprintf("%q", s)
}
