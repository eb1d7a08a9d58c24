// Package report prints the results of the measuring programs in hack, and puts them into documents.
//
//	durations ─► Samples ─► Median, Tail ─┐
//	cells ──────────────────────────────► Table ─► Section ─► Write ─► Markdown file
//	points ─► Chart ─► SVG
//	Watch ─► Machine: what else used the processors meanwhile
package report
