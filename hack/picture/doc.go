// Command picture draws the output of the demo as an SVG of a terminal, for the README.
//
//	go run . demo ─► stdin ─► keep: lines ─► draw ─► stdout > docs/demo.svg
//
// It keeps the first table of each part of the demo, and drops the nft listing.
package main
