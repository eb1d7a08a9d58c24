// Command man writes the man pages of all commands into a directory.
//
//	go run ./hack/man DIR
//
//	internal/command ─► cobra/doc ─► DIR/*.8, a page for each command
package main
