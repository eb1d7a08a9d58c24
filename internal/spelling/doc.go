// Package spelling suggests the right name for a misspelled name: a field of a manifest, a flag, a value of a flag.
//
//	"prots", [from ports] ─► Nearest ─► "ports"
package spelling
