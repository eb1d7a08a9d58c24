package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// releases are the kernels, each with the Debian release that has it. The newest kernel of the release is downloaded.
var releases = []struct{ version, debian string }{
	{"5.10", "bullseye"},
	{"6.1", "bookworm"},
	{"6.12", "trixie"},
}

// versions returns the versions of all kernels.
func versions() []string {
	var list []string
	for _, r := range releases {
		list = append(list, r.version)
	}
	return list
}

// kernel is a kernel that QEMU can boot.
type kernel struct {
	image   string // vmlinuz
	modules string // directory with lib/modules/VERSION in it
}

// getKernel returns the kernel from the cache. It downloads a kernel that the cache lacks.
func getKernel(ctx context.Context, cache, version string) (kernel, error) {
	dir := filepath.Join(cache, version)
	k := kernel{image: filepath.Join(dir, "vmlinuz"), modules: filepath.Join(dir, "modules")}
	if _, err := os.Stat(k.image); err == nil {
		return k, nil
	}
	for _, r := range releases {
		if r.version == version {
			return k, download(ctx, r.debian, dir)
		}
	}
	return k, fmt.Errorf("no kernel %s; there are %s", version, strings.Join(versions(), ", "))
}

// download makes the directory of a kernel. It works in a temporary directory beside it and renames that at the end, so
// an interrupted download leaves no directory that looks complete.
func download(ctx context.Context, debian, dir string) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	deb, err := downloadDeb(ctx, debian, tmp)
	if err != nil {
		return err
	}
	files, ready := filepath.Join(tmp, "files"), filepath.Join(tmp, "ready")
	if _, err := command(ctx, tmp, "dpkg-deb", "-x", deb, files); err != nil {
		return err
	}
	if err := takeModules(ctx, files, filepath.Join(ready, "modules")); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(files, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%d kernels in the package (%w)", len(images), err)
	}
	if err := os.Rename(images[0], filepath.Join(ready, "vmlinuz")); err != nil {
		return err
	}
	return os.Rename(ready, dir)
}

// downloadDeb downloads the newest kernel package of a Debian release with apt-get and returns the file. It uses the
// security archive in this machine's apt sources. The release may differ from the release of this machine, so apt gets
// its own lists and its own cache.
func downloadDeb(ctx context.Context, debian, dir string) (string, error) {
	// The address of the archive may be that of a mirror.
	bases, err := command(ctx, dir, "apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)",
		"Created-By: Packages")
	if err != nil {
		return "", err
	}
	archive := regexp.MustCompile(`(?m)^\S*-security/?$`).FindString(bases)
	if archive == "" {
		return "", errors.New("this machine's apt has no security archive of Debian")
	}
	source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s-security main\n", archive, debian)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(source), 0o644); err != nil {
		return "", err
	}
	for _, partial := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, partial), 0o755); err != nil {
			return "", err
		}
	}
	own := []string{
		"-q", "-o", "Dir::Etc::SourceList=" + filepath.Join(dir, "sources.list"), "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "APT::Sandbox::User=root",
	}
	if _, err := command(ctx, dir, "apt-get", append(own, "update")...); err != nil {
		return "", err
	}
	// The package linux-image-amd64 is empty. It depends on the newest kernel.
	depends, err := command(ctx, dir, "apt-cache", append(own, "depends", "linux-image-amd64")...)
	if err != nil {
		return "", err
	}
	name := regexp.MustCompile(`linux-image-[0-9]\S*`).FindString(depends)
	if name == "" {
		return "", fmt.Errorf("no kernel in %s", debian)
	}
	if _, err := command(ctx, dir, "apt-get", append(own, "download", name)...); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("%d packages %s downloaded (%w)", len(debs), name, err)
	}
	return debs[0], nil
}

// moduleFolders are the folders with the modules that pods and the agent can make the kernel load: the network stack, virtual
// network devices, checksums and ciphers. They are patterns below the folder "kernel" of the package.
var moduleFolders = []string{
	"net", "lib", "crypto", "arch/x86/crypto",
	"drivers/net/*.ko*", "drivers/net/bonding", "drivers/net/ipvlan", "drivers/net/team", "drivers/net/vxlan",
}

// takeModules moves the modules in moduleFolders from the files of a package to a directory, and makes the index for modprobe.
func takeModules(ctx context.Context, files, to string) error {
	// Packages have the modules in /lib, or in /usr/lib.
	found, err := filepath.Glob(filepath.Join(files, "lib", "modules", "*"))
	if err != nil || len(found) == 0 {
		found, err = filepath.Glob(filepath.Join(files, "usr", "lib", "modules", "*"))
	}
	if err != nil || len(found) != 1 {
		return fmt.Errorf("%d folders of modules in the package (%w)", len(found), err)
	}
	from, version := found[0], filepath.Base(found[0])
	target := filepath.Join(to, "lib", "modules", version)
	for _, pattern := range append([]string{"../modules.order", "../modules.builtin"}, moduleFolders...) {
		paths, err := filepath.Glob(filepath.Join(from, "kernel", pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			name, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(target, name)), 0o755); err != nil {
				return err
			}
			if err := os.Rename(path, filepath.Join(target, name)); err != nil {
				return err
			}
		}
	}
	// modprobe of busybox reads no compressed modules.
	if _, err := command(ctx, to, "find", target, "-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"); err != nil {
		return err
	}
	_, err = command(ctx, to, "busybox", "depmod", "-b", to, version)
	return err
}

// command runs a program in a directory and returns its output. The error contains its standard error.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stderr strings.Builder
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stderr = dir, &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, stderr.String())
	}
	return string(out), nil
}
