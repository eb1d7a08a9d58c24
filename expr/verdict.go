package expr

import "github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/expr/bytecode"

// Accept is `accept`: the packet passes this base chain. Base chains of other tables can still drop it.
func Accept() Statement { return verdict("accept", &bytecode.Verdict{Kind: bytecode.VerdictAccept}) }

// Drop is `drop`: the packet is discarded without an answer.
func Drop() Statement { return verdict("drop", &bytecode.Verdict{Kind: bytecode.VerdictDrop}) }

// Return is `return`: evaluation continues after the jump into the current chain.
func Return() Statement { return verdict("return", &bytecode.Verdict{Kind: bytecode.VerdictReturn}) }

// Jump is `jump CHAIN`: evaluation continues in the chain, and returns at the chain's end.
func Jump(chain string) Statement {
	return verdict("jump "+chain, &bytecode.Verdict{Kind: bytecode.VerdictJump, Chain: chain})
}

// Goto is `goto CHAIN`: evaluation continues in the chain, and does not return to the current chain at the chain's end. From a
// base chain, the end of the chain is the policy of the base chain.
func Goto(chain string) Statement {
	return verdict("goto "+chain, &bytecode.Verdict{Kind: bytecode.VerdictGoto, Chain: chain})
}

func verdict(text string, v *bytecode.Verdict) Statement {
	return Statement{Text: text, Exprs: []bytecode.Any{v}}
}

// Counter is `counter`: it counts the packets and bytes that reach it.
func Counter() Statement {
	return Statement{Text: "counter", Exprs: []bytecode.Any{&bytecode.Counter{}}}
}
