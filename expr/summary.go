package expr

import "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"

// Summary lists the objects of the table on which a rule depends, and the rule's verdict. The engine plans its steps
// with it: it follows jumps from the base chains, and finds the rules that look up a set.
type Summary struct {
	Sets    []string // names of the sets that the rule looks up
	Negated bool     // a lookup matches packets whose key is not in the set
	Verdict string   // "accept", "drop", "reject", "return", "jump", "goto"; "unknown"; empty: none
	Chain   string   // the target of a jump or goto
}

// Summarize returns the summary of a rule.
func Summarize(rule []Statement) Summary {
	var s Summary
	for _, statement := range rule {
		for _, e := range statement.Exprs {
			switch e := e.(type) {
			case *bytecode.Lookup:
				s.Sets = append(s.Sets, e.SetName)
				s.Negated = s.Negated || e.Invert
			case *bytecode.Reject:
				s.Verdict = "reject"
			case *bytecode.Verdict:
				s.Verdict, s.Chain = verdictText(e.Kind), e.Chain
			}
		}
		// An opaque rule may hold expressions with a verdict that Opaque does not read, such as a queue. Without a
		// known verdict, any effect must be assumed.
		if statement.opaque && s.Verdict == "" {
			s.Verdict = unknownVerdict
		}
	}
	return s
}

// IsUnconditional reports whether every packet that reaches a rule meets its verdict.
func IsUnconditional(rule []Statement) bool {
	for _, statement := range rule {
		for _, e := range statement.Exprs {
			switch e.(type) {
			case *bytecode.Counter, *bytecode.Log, *bytecode.Verdict, *bytecode.Reject:
			default:
				return false
			}
		}
	}
	return !IsOpaque(rule)
}

// unknownVerdict stands for any verdict.
const unknownVerdict = "unknown"

func verdictText(k bytecode.VerdictKind) string {
	switch k {
	case bytecode.VerdictAccept:
		return "accept"
	case bytecode.VerdictDrop:
		return "drop"
	case bytecode.VerdictReturn:
		return "return"
	case bytecode.VerdictJump:
		return "jump"
	case bytecode.VerdictGoto:
		return "goto"
	}
	return unknownVerdict
}

// IsOpaque reports whether Opaque made the rule.
func IsOpaque(rule []Statement) bool { return len(rule) > 0 && rule[0].opaque }
