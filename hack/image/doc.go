// Command image packs files into a container image without a container engine or a registry. The image is a docker-archive tar
// with a single layer, for `ctr images import`, `docker load` and `podman load`. Equal files make equal images, byte for byte.
//
//	image -ref example.test/agent:1 -o agent.tar ./agent:/agent
//
//	FILE:PATH ... ─► oci.Build ─► tarball.WriteToFile ─► -o FILE
//
// Each argument is FILE:PATH: a file of this machine and its path in the image. The image runs the first file, as root.
package main
