// Package oci makes container images from files, without a container engine or a registry. Equal files make equal images, byte for
// byte.
//
//	File ... ─► Build ─► image ─────────────► tarball.Write, for a node
//	                       └─► Index ─► Write ─► OCI layout ─► registry
//	                                      └────► Archive ─► tar, for a node
package oci
