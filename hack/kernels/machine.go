package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// machine describes a virtual machine without disk and network.
type machine struct {
	cpus   int
	memory int           // MiB
	limit  time.Duration // of a whole run
}

// boot starts a kernel with an initramfs and waits until the machine switches itself off. The output of the first serial port
// goes to the file console, the output of the second serial port to out.
func (m machine) boot(ctx context.Context, kernel, initramfs, console string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	// The emulation (tcg) needs no /dev/kvm. It is niced, because it takes all CPUs that it gets.
	args := []string{"-n", "10", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,la57=off", "-nodefaults", "-no-reboot",
		"-display", "none", "-nic", "none", "-m", strconv.Itoa(m.memory), "-smp", strconv.Itoa(m.cpus),
		"-kernel", kernel, "-initrd", initramfs,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on",
		"-serial", "file:" + console, "-serial", "stdio"}
	if m.cpus == 1 {
		// The clock of the machine counts instructions, 2 ns each: a busy host does not make a test time out.
		args = append(args, "-icount", "shift=1", "-rtc", "clock=vm")
	}
	c := exec.CommandContext(ctx, "nice", args...)
	c.Stdout, c.Stderr = out, os.Stderr
	err := c.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the machine ran for more than %s; kernel log: %s", m.limit, console)
	}
	if err != nil {
		return fmt.Errorf("qemu: %w; kernel log: %s", err, console)
	}
	return nil
}
