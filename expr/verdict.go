package expr

import "github.com/google/nftables/expr"

// Accept is `accept`: the packet passes this table.
func Accept() Statement { return verdict("accept", &expr.Verdict{Kind: expr.VerdictAccept}) }

// Drop is `drop`: the packet is gone, without an answer.
func Drop() Statement { return verdict("drop", &expr.Verdict{Kind: expr.VerdictDrop}) }

// Return is `return`: goes on where the chain was jumped to from.
func Return() Statement { return verdict("return", &expr.Verdict{Kind: expr.VerdictReturn}) }

// Jump is `jump CHAIN`: goes on in the chain, and comes back at its end.
func Jump(chain string) Statement {
	return verdict("jump "+chain, &expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

// Goto is `goto CHAIN`: goes on in the chain, and at its end meets the policy of the base chain.
func Goto(chain string) Statement {
	return verdict("goto "+chain, &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func verdict(text string, v *expr.Verdict) Statement {
	return Statement{Text: text, Exprs: []expr.Any{v}}
}

// Counter is `counter`: counts the packets and bytes that get here.
func Counter() Statement { return Statement{Text: "counter", Exprs: []expr.Any{&expr.Counter{}}} }
