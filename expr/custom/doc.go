// Package custom reads files of custom rules: one rule a line, in the syntax of nft. A rule becomes statements of
// package expr, which alone knows of registers and offsets, and a list in braces becomes a named set. What cannot be
// read is an error that says where it is and what was expected there; nothing is passed over or guessed.
package custom
