package main

import (
	"fmt"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/hack/report"
)

// packetTable returns a table with a line for each number of policies and peers and a column for each style of rules. A cell
// has the CPU time in ns of a packet that the last policy allows (difference to no rules) and thousands of packets a second on
// a core.
func packetTable(rows []packetRow) string {
	lines := [][]string{{"policies", "peers each", "ports", "flow"}}
	for _, s := range ruleStyles {
		lines[0] = append(lines[0], s.name)
	}
	// The row without rules comes first in each group of rows; the differences of the rows behind it are to this row.
	none := packetRow{}
	for _, x := range rows {
		if x.Rules == ruleStyles[0].name {
			none = x
			lines = append(lines, make([]string, len(lines[0])))
			copy(lines[len(lines)-1], []string{fmt.Sprint(x.Policies), fmt.Sprint(x.Peers), x.Ports, x.Flow})
		}
		for i, s := range ruleStyles {
			if s.name == x.Rules {
				lines[len(lines)-1][4+i] = fmt.Sprintf("%d (+%d); %d", x.CPU.Nanoseconds(), (x.CPU - none.CPU).Nanoseconds(), x.Rate/1000)
			}
		}
	}
	return report.Table(lines)
}
