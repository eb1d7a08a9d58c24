package main

import (
	"bytes"
	"fmt"
	"os/exec"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine"
)

// rewriteWay replaces the whole table at each change, with a run of `nft -f -` for each pod, in a single batch.
// It is the simplest agent: it remembers nothing. Its time grows with the table, not with the change.
type rewriteWay struct {
	*fleet
	world *world
	bytes []uint64 // by pod
}

func newRewriteWay(f *fleet, w *world) *rewriteWay {
	return &rewriteWay{fleet: f, world: w, bytes: make([]uint64, len(f.hosts))}
}

func (*rewriteWay) name() string { return "rewrite" }
func (*rewriteWay) close() error { return nil }

// sent counts the text that nft reads, not the messages that nft sends.
func (y *rewriteWay) sent() uint64 {
	var sum uint64
	for _, b := range y.bytes {
		sum += b
	}
	return sum
}

func (y *rewriteWay) prepare(e event) error {
	if y.at == e.from {
		return nil
	}
	return y.write(e.from)
}

func (y *rewriteWay) run(e event) error { return y.write(e.to) }

// write replaces the table of each pod. Adding the table before its deletion makes the deletion succeed without a
// table, too; the kernel carries out all of it as a whole.
func (y *rewriteWay) write(to state) error {
	err := each(len(y.hosts), func(i int) error {
		var text bytes.Buffer
		fmt.Fprintf(&text, "add table inet %s\ndelete table inet %s\n", engine.TableName, engine.TableName)
		if err := engine.Render(&text, engine.Inet, y.world.rulesets[to][i]); err != nil {
			return err
		}
		y.bytes[i] += uint64(text.Len())
		return y.hosts[i].Do(func() error {
			// The process belongs to the namespace of the thread that starts it.
			c := exec.Command("nft", "-f", "-")
			c.Stdin = &text
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
			return nil
		})
	})
	if err == nil {
		y.at = to
	}
	return err
}
