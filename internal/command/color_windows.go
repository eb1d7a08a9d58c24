package command

import (
	"os"

	"golang.org/x/sys/windows"
)

// isColorTerminal reports whether the file is a console that shows colors. A console of Windows prints the codes of colors as text
// until a program switches them on, which fails before Windows 10.
func isColorTerminal(file *os.File) bool {
	console := windows.Handle(file.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
