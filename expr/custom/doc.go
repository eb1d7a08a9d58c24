// Package custom reads files of custom rules: a rule on each line, in the syntax of nft.
//
//	file ─► lexer ─► parser ─► parts ─► Rules: statements of package expr, and a named set for each list in braces
//	                    │
//	                    └─► SyntaxError: line, column, and the words that the parser expected
//
// Each line is parsed twice: once for the packets that it is about, and once for the replies to these packets, with source and
// destination exchanged.
//
// Package expr alone knows registers and offsets. The parser ignores nothing and guesses nothing: text that it cannot read is a
// SyntaxError. The grammar is in docs/custom-rules.md.
package custom
