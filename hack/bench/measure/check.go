package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"unicode"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// check makes sure that all ways lead to the same table. After each event of the floor, an engine that reads the table back must
// find no difference. nft must then print the same list as after the ways that run nft. (The sets of these ways hold an extra
// element, which nft puts before the first range and does not list.)
// A figure of a way is worth nothing if the way leaves another table than the others, for instance because it skipped
// an element. So check runs after each cycle, and its error ends the benchmark.
func check(ways []way, events []event) error {
	listed := map[event]string{}
	// The floor is the first way: its lists are the reference of the ways after it.
	for _, y := range ways {
		for _, e := range events {
			if f, ok := y.(*floorWay); ok { // it has its own table
				if err := f.move(e.from); err != nil {
					return err
				}
			}
			if err := errors.Join(y.prepare(e), y.run(e)); err != nil {
				return err
			}
			if err := checkWay(y, e, listed); err != nil {
				return fmt.Errorf("after %q, %s: %w", e.name, y.name(), err)
			}
		}
	}
	return nil
}

// checkWay compares the table after the event with the reference. listed has the list after the floor's run of each
// event.
func checkWay(y way, e event, listed map[event]string) error {
	switch y := y.(type) {
	case *floorWay:
		var err error
		if err = y.readBack(e); err == nil {
			listed[e], err = y.list()
		}
		return err
	case *connWay:
		return y.compare(listed[e])
	case *knftablesWay:
		return y.compare(listed[e])
	case *rewriteWay:
		return y.compare(listed[e])
	}
	return nil // the engine needs no comparison with itself
}

// readBack compares the kernel's table with the wanted ruleset by a new engine. A new engine knows nothing of the
// table, so it reads everything from the kernel; no batch means no difference.
func (y *floorWay) readBack(e event) error {
	// The engine does not own the table, so the floor can go on with it.
	x, err := engine.Open("check", y.hosts[0].NetNS(), engine.Options{})
	if err != nil {
		return err
	}
	err = x.Apply(context.Background(), y.world.rulesets[e.to][0])
	// Stats counts the batches that were sent.
	if n := x.Stats().Batches; err == nil && n != 0 {
		err = fmt.Errorf("the table was not what it should be: %d batches repaired it", n)
	}
	return errors.Join(err, x.Close())
}

// list returns the list of nft with sorted words, since nft lists objects in the order of their creation.
// Only the first pod is listed: all pods of a world have the same table.
func (f *fleet) list() (string, error) {
	var text []byte
	err := f.hosts[0].Do(func() (err error) {
		text, err = exec.Command("nft", "--stateless", "list", "ruleset").Output()
		return err
	})
	// Sorted words lose the place of an element. Two tables that differ only in the order of their rules would look
	// alike; readBack notices the order for the floor.
	words := strings.FieldsFunc(string(text), func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",{}", r) })
	slices.Sort(words)
	return strings.Join(words, "\n"), err
}

// compare compares the first pod's table with the list after the same event of the floor.
func (f *fleet) compare(want string) error {
	got, err := f.list()
	if err == nil && got != want {
		err = errors.New("nft lists another table than after the floor's messages")
	}
	return err
}
