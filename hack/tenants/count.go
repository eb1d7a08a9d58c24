package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// counting holds the counters as of the start of an attack.
// At the end, finish compares the agent's numbers with these.
type counting struct {
	// rig has the agent whose numbers are counted
	rig *rig
	log int64 // size
	// kills is the cgroup's count of kills, which never goes back
	kills int64
	left  left
	// sampled is closed when sample has ended; stop tells it to end
	sampled chan struct{}
	stop    chan struct{}
	kernel  int64 // highest
}

// startCounting starts new counts and removes all Events, so that those of an earlier attack do not count.
func (r *rig) startCounting(ctx context.Context) (*counting, error) {
	for _, ns := range append([]string{victimNamespace}, evilNamespaces...) {
		if err := r.admin.removeAll(ctx, events, ns); err != nil {
			return nil, err
		}
	}
	left, err := r.agent.left(ctx)
	if err != nil {
		return nil, err
	}
	c := &counting{
		rig: r, log: size(r.agent.logFile()), kills: r.agent.group.kills(), left: left,
		stop: make(chan struct{}), sampled: make(chan struct{}),
	}
	r.agent.group.resetHighest()
	r.agent.takeHealth()
	go c.sample()
	return c, nil
}

// sample keeps the highest kernel memory, which the kernel does not keep by itself.
func (c *counting) sample() {
	defer close(c.sampled)
	for {
		c.kernel = max(c.kernel, c.rig.agent.group.kernel())
		select {
		case <-c.stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// events returns the number of Events since the start.
func (c *counting) events(ctx context.Context) (int, error) {
	return c.rig.admin.count(ctx, events, "")
}

// finish puts the counts into the row.
// It must be called after undo, so that only leaks remain of the objects. It ends the counting.
func (c *counting) finish(ctx context.Context, x *row) {
	close(c.stop)
	<-c.sampled
	a := c.rig.agent
	x.peak, x.kernel, x.kills = a.group.highest(), c.kernel, a.group.kills()-c.kills
	x.health = a.takeHealth()
	x.logBytes = size(a.logFile()) - c.log
	if err := checkLog(a.logFile(), c.log); err != nil {
		x.faults = append(x.faults, err.Error())
	}
	// Connections to objects that are gone end a little later.
	err := eventually(ctx, forgetPatience, "the agent forgets what is gone", func() error {
		left, err := a.left(ctx)
		if err != nil {
			return err
		}
		x.goroutines, x.descriptors = left.goroutines-c.left.goroutines, left.descriptors-c.left.descriptors
		if x.goroutines > goroutinesMargin || x.descriptors > descriptorsMargin {
			return errors.New("not yet")
		}
		return nil
	})
	// The questions failed, though the last numbers were good: the agent did not answer.
	if err != nil && x.goroutines <= goroutinesMargin && x.descriptors <= descriptorsMargin {
		x.faults = append(x.faults, err.Error())
	}
}

// forgetPatience is how long an agent may take to forget. A question to the runtime that hangs lasts 10 s.
const forgetPatience = 15 * time.Second

// size returns the length of a file.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// checkLog returns an error if the log, from an offset on, has a line that the agent's logger cannot have written: a
// tenant would have put it there.
// A forged line could hide an attack or blame another namespace.
func checkLog(path string, offset int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	// Longer logs break logAtMost anyway.
	text, err := io.ReadAll(io.LimitReader(f, 64<<20))
	if err != nil {
		return err
	}
	return checkLines(string(text))
}

// logLine is the start of a line of the agent's log. The Go runtime writes other lines when the agent panics.
var logLine = regexp.MustCompile(`^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\] `)

// checkLines returns an error if a line is not of the logger's form, or has characters that control a terminal.
func checkLines(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		// klog writes a value of several lines with an indentation, so that its lines differ from lines of the log.
		if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, " >") { // a value of several lines
			line = strings.TrimPrefix(line, "\t")
			if logLine.MatchString(line) {
				return fmt.Errorf("the log has a forged line in a value: %.200q", line)
			}
			continue
		}
		switch {
		case !utf8.ValidString(line):
			return fmt.Errorf("the log is not UTF-8: %.200q", line)
		case strings.ContainsFunc(line, func(c rune) bool { return c != '\t' && !unicode.IsPrint(c) }):
			return fmt.Errorf("the log has control characters: %.200q", line)
		case !logLine.MatchString(line):
			return fmt.Errorf("the log has a line of another form: %.200q", line)
		}
	}
	return nil
}
