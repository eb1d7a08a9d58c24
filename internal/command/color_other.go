//go:build !windows

package command

import (
	"os"

	"golang.org/x/term"
)

// isColorTerminal reports whether the file is a terminal. All terminals show colors.
func isColorTerminal(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }
