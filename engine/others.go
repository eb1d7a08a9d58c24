//go:build linux

package engine

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/conntrack"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
)

// isFirst reports whether no policy was in force in the namespace before. Otherwise a UDP socket may have a peer that a policy
// denied. The Engine must have found no table. If an answer is missing, a policy may have been in force.
func (e *Engine) isFirst() bool {
	isSeeded, err := conntrack.IsSeeded(e.transport)
	if err != nil || isSeeded { // another process has deleted the table while policies were in force
		return false
	}
	filtered, err := hasOtherTables(e.transport)
	return err == nil && !filtered
}

// errOther ends a list of tables at the first table of another program.
var errOther = errors.New("another table")

// hasOtherTables reports whether the namespace of the socket has tables of other programs. One of them may be another agent for
// MultiNetworkPolicy: the agent that uses iptables runs beside this agent during a migration. Tables that use connection tracking keep
// it on, so entries of the allowed connections exist.
func hasOtherTables(c *nfnl.Conn) (bool, error) {
	netns, err := c.Namespace()
	if err != nil {
		return false, err
	}
	defer netns.Close()
	// A socket of its own: the end of an unfinished dump replaces the socket, and the Engine's socket may own a table.
	list, err := nfnl.Dial(netns)
	if err != nil {
		return false, err
	}
	defer list.Close() //nolint:errcheck // the socket only asked a question
	var m nfnl.Messages
	m.BeginNFT(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC, nfnl.Label{Op: "GETTABLE"})
	m.End()
	err = list.Ask(&m, nfnl.NFTables|unix.NFT_MSG_NEWTABLE, func(a nfnl.Attrs) error {
		// The trace of packets has a table too, whose name begins with the same word.
		if strings.HasPrefix(a.Text(unix.NFTA_TABLE_NAME), TableName) {
			return nil
		}
		return errOther
	})
	switch {
	case errors.Is(err, errOther):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("list the tables: %w", err)
	}
	return nfnl.HasLegacyTables(netns)
}
