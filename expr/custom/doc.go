// Package custom reads files of custom rules: a rule on each line, in the syntax of nft.
//
//	file ─► lexer ─► parser ─► Rules: statements of package expr, and a named set for each list in braces
//	                    └────► SyntaxError: line, column, and the words that the parser expected
//
// Package expr alone knows of registers and offsets. The parser ignores nothing and guesses nothing: text that it cannot read
// is a SyntaxError.
package custom
