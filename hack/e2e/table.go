package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// tableName is the agent's table in the output of stock nft. The agent itself never runs nft.
const tableName = "table inet multi_networkpolicy"

// hasTable reports whether a pod has the agent's table.
func (c *cluster) hasTable(ctx context.Context, p *pod) (bool, error) {
	out, err := c.output(ctx, c.inside(p, "nft", "list", "tables")...)
	return slices.Contains(strings.Split(string(out), "\n"), tableName), err
}

// table prints the agent's table in a pod, with handles and without counters (-s).
// Counters would differ between two listings of the same rules.
func (c *cluster) table(ctx context.Context, p *pod) ([]byte, error) {
	return c.output(ctx, c.inside(p, append([]string{"nft", "-s", "-a", "list"}, strings.Fields(tableName)...)...)...)
}

// tables returns an error unless exactly the selected pods have the table.
// Without selected pods, no pod may have the table.
func (c *cluster) tables(ctx context.Context, pods map[string]*pod, selected ...string) error {
	var errs []error
	for _, name := range names(pods) {
		has, err := c.hasTable(ctx, pods[name])
		if err != nil {
			errs = append(errs, err)
		} else if want := slices.Contains(selected, name); has != want {
			errs = append(errs, fmt.Errorf("pod %s: table is %t, want %t", name, has, want))
		}
	}
	return errors.Join(errs...)
}

// handle matches the handle of an object in the output of nft.
// An example: "# handle 12".
var handle = regexp.MustCompile(`# handle \d+`)

// handles returns the handles of all objects in the table. An object that is made again, even with equal content, has a new
// handle.
func (c *cluster) handles(ctx context.Context, p *pod) (string, error) {
	out, err := c.table(ctx, p)
	return strings.Join(handle.FindAllString(string(out), -1), " "), err
}
