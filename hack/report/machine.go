package report

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine describes the machine of a run.
type Machine struct {
	Date   string `json:"date"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"` // version that built the program
	// Cores is the number of threads that Go runs at the same time: fewer than the machine's cores if the affinity or GOMAXPROCS
	// says so.
	Cores int `json:"cores"`
	// Others is the processor time of other programs during the run, in cores. It includes the kernel's own threads.
	Others float64 `json:"others"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, Linux %s, %s, %d cores; other programs used %.2f cores meanwhile.", m.Date, m.Kernel, m.Go, m.Cores, m.Others)
}

// mostOthers is the processor time of others, in cores, above which a run is not worth documenting.
const mostOthers = 0.15

// ErrBusy means that other programs used so much processor time that the results belong into no document.
var ErrBusy = errors.New("the machine is busy")

// Quiet returns an error that wraps ErrBusy if other programs disturbed the run.
func (m Machine) Quiet() error {
	if m.Others > mostOthers {
		return fmt.Errorf("%w: other programs used %.2f cores, more than %.2f", ErrBusy, m.Others, mostOthers)
	}
	return nil
}

// Watch notes how much processor time others use from now on.
type Watch struct {
	start time.Time
	other time.Duration
}

// NewWatch starts a Watch.
func NewWatch() (Watch, error) {
	other, err := otherTime()
	return Watch{time.Now(), other}, err
}

// Machine returns the machine, with the processor time of others since the start of the watch. The children of this process must
// have ended, and it must have waited for them: until then, they count as others.
func (w Watch) Machine() (Machine, error) {
	m := Machine{Date: time.Now().Format(time.DateOnly), Go: runtime.Version(), Cores: runtime.GOMAXPROCS(0)}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	other, err := otherTime()
	m.Others = max(0, (other-w.other).Seconds()/time.Since(w.start).Seconds())
	return m, err
}

// AwaitQuiet measures the machine for some seconds while this process rests, and returns an error that wraps ErrBusy if others use it.
func AwaitQuiet() error {
	w, err := NewWatch()
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	m, err := w.Machine()
	if err != nil {
		return err
	}
	return m.Quiet()
}

// otherTime returns the processor time of all but this process and its ended children, since the start of the machine.
func otherTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	all, err := busyTime(string(b))
	if err != nil {
		return 0, err
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("getrusage: %w", err)
		}
		all -= time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return all, nil
}

// userHZ is the number of units of /proc/stat in a second (proc(5)). It is 100 on all architectures of Go.
const userHZ = 100

// busyTime returns the processor time of all programs and the kernel from the first line of /proc/stat: all columns but idle (4th),
// iowait (5th) and guest times (9th and 10th), which are in user time. The time that a hypervisor gave to others (steal) counts.
func busyTime(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	sum := int64(0)
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat begins with %q", line)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / userHZ, nil
}
