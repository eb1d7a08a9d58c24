package cache

import "fmt"

// Problem is what is wrong with one field of an object. What the field would have allowed is not allowed.
type Problem struct {
	Field   string // as a path: spec.ingress[0].from[1].ipBlock.cidr
	Message string
}

// String is the field and the message.
func (p Problem) String() string { return p.Field + ": " + p.Message }

// problems collects them in the order of the fields.
type problems []Problem

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}
