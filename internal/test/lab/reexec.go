package lab

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideVar is set in a process that Reexec started in a user namespace, so that it does not start itself again.
const insideVar = "MULTI_NETWORKPOLICY_LAB_INSIDE"

// noLabsVar makes tests skip their labs. It is for processes that the kernel cannot give network namespaces, such as a test binary
// of another architecture under qemu-user: there, the tests that need no kernel still run.
const noLabsVar = "MULTI_NETWORKPOLICY_NO_LABS"

// Main runs the tests of a package that uses labs, and exits. TestMain calls it with its *testing.M. If the process may not make
// network namespaces, Main runs the test binary again in a user namespace.
// The interface has the method of *testing.M, so the package testing is not needed here.
func Main(m interface{ Run() int }) {
	if os.Getenv(noLabsVar) != "" {
		os.Exit(m.Run())
	}
	code, done, err := Reexec()
	if err != nil {
		fmt.Fprintf(os.Stderr, "these tests need network namespaces: %v\n", err)
		os.Exit(1)
	}
	if !done {
		code = m.Run()
	}
	os.Exit(code)
}

// Reexec ensures that the program can make network namespaces. If this process may make them, it returns done == false, and the
// caller continues. Otherwise it runs the program again as root of a new user namespace, with the same arguments and standard
// streams, waits for its end, and returns done == true with its exit code.
// As root of a user namespace the program may do everything in the network namespaces that it makes, and nothing to
// the machine.
func Reexec() (code int, done bool, err error) {
	inside := os.Getenv(insideVar) != ""
	cause := mayUnshare()
	switch {
	case cause == nil && inside:
		// The new network namespace of the process has lo down.
		return 0, false, setLoopbackUp()
	case cause == nil:
		return 0, false, nil
	case inside:
		return 1, false, fmt.Errorf("not even as root of a user namespace: %w", cause)
	}
	child, err := startInUserNS()
	if err != nil {
		return 1, false, fmt.Errorf("not as this user (%w), nor in a user namespace: %w", cause, err)
	}
	state, err := forwardSignals(child)
	if err != nil {
		return 1, false, fmt.Errorf("wait for the process in the user namespace: %w", err)
	}
	// Like a shell, 128 and the number of the signal.
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), true, nil
	}
	return state.ExitCode(), true, nil
}

// mayUnshare returns an error unless this process may make network namespaces. It tries to make a namespace.
// An attempt is the only reliable test: capabilities, seccomp and sysctls all play a part.
func mayUnshare() error {
	n, err := newNamespace()
	if err != nil {
		return err
	}
	return n.close()
}

// setLoopbackUp sets lo up in the network namespace of the process, so that 127.0.0.1 works.
func setLoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// startInUserNS starts this program again, as root of new user, network and mount namespaces.
// The child has no privileges outside. The caller waits for it.
func startInUserNS() (*os.Process, error) {
	return os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), insideVar+"=1"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
			// A process without privileges may map only its own IDs (user_namespaces(7)).
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	})
}

// forwardSignals waits for the end of the child, and forwards signals to it that would end this process.
// Without this, a signal to the parent would leave the child behind.
func forwardSignals(child *os.Process) (*os.ProcessState, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case s := <-signals:
				if err := child.Signal(s); errors.Is(err, os.ErrProcessDone) {
					return
				}
			case <-stop:
				return
			}
		}
	}()
	return child.Wait()
}
