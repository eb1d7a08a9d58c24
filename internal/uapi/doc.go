// Package uapi has constants of Linux's headers, under the names of golang.org/x/sys/unix, for every operating system. The packages
// that make and explain rules need them on any machine, but golang.org/x/sys/unix has them on Linux only.
//
// A constant is here only if a package that builds outside Linux uses it. A test compares all constants with golang.org/x/sys/unix.
package uapi
