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
func check(ways []way, events []event) error {
	listed := map[event]string{}
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

func (y *floorWay) readBack(e event) error {
	x, err := engine.Open("check", y.hosts[0].NetNS(), engine.Options{})
	if err != nil {
		return err
	}
	err = x.Apply(context.Background(), y.world.rulesets[e.to][0])
	if n := x.Stats().Batches; err == nil && n != 0 {
		err = fmt.Errorf("the table was not what it should be: %d batches repaired it", n)
	}
	return errors.Join(err, x.Close())
}

// list returns the list of nft with sorted words, since nft lists objects in the order of their creation.
func (f *fleet) list() (string, error) {
	var text []byte
	err := f.hosts[0].Do(func() (err error) {
		text, err = exec.Command("nft", "--stateless", "list", "ruleset").Output()
		return err
	})
	words := strings.FieldsFunc(string(text), func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",{}", r) })
	slices.Sort(words)
	return strings.Join(words, "\n"), err
}

func (f *fleet) compare(want string) error {
	got, err := f.list()
	if err == nil && got != want {
		err = errors.New("nft lists another table than after the floor's messages")
	}
	return err
}
