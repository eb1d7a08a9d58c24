package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"runtime/debug"
)

// program is the name of the program, and of its files.
const program = "multi-networkpolicy-nftables"

// architectures are the architectures of a release.
var architectures = []string{"amd64", "arm64"}

// platform is an operating system and an architecture, as Go names them.
type platform struct{ os, arch string }

// binaryName returns the name of the program's file for an architecture. The agent runs on Linux only.
func binaryName(arch string) string { return program + "-linux-" + arch }

// hermetic are the variables that make a build depend on nothing but the sources, the module cache and the version of Go. Without
// GOPROXY=off, go would ask the network for a missing module.
var hermetic = []string{
	"CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOTOOLCHAIN=local",
	"GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off",
}

// buildTags leave out the pages that gRPC serves about its requests. They use html/template, which calls methods by name: with it, the
// linker must keep all exported methods of all types. docs/release.md has the sizes.
const buildTags = "grpcnotrace"

// builtProgram is a program of the release.
type builtProgram struct {
	asset string // file of the release that is the program or holds it
	info  *debug.BuildInfo
}

// buildBinary builds the agent for an architecture.
func (r *release) buildBinary(ctx context.Context, arch string) error {
	file := binaryName(arch)
	return r.buildProgram(ctx, platform{"linux", arch}, ".", r.file(file), file)
}

// buildProgram builds a package of the project for a platform. -trimpath keeps the folder out of the file. The version comes from the
// argument and not from Git, so that a source archive makes the same file. The asset is the file of the release that is the program or
// holds it.
func (r *release) buildProgram(ctx context.Context, p platform, dir, out, asset string) error {
	buildID := ""
	if p.os == "darwin" {
		// Without an ID, Go's linker writes no LC_UUID, and macOS 26 starts no program that lacks it.
		buildID = asset + "-" + r.version
	}
	if _, err := r.command(ctx, append(hermetic, "GOOS="+p.os, "GOARCH="+p.arch), "go", "build", "-trimpath", "-buildvcs=false", "-tags", buildTags,
		"-ldflags", fmt.Sprintf("-s -w -buildid=%s -X main.version=%s", buildID, r.version), "-o", out, dir); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(out)
	r.programs = append(r.programs, builtProgram{asset, info})
	return err
}
