package main

import "fmt"

// packetTable has one line for each number of policies and peers, and one column a style: ns of CPU time of one packet
// that the last policy lets pass (more than without rules); thousand packets a second on one core.
func packetTable(rows []packetRow) string {
	lines := [][]string{{"policies", "peers each", "flow"}}
	for _, s := range ruleStyles {
		lines[0] = append(lines[0], s.name)
	}
	none := packetRow{}
	for _, x := range rows {
		if x.Rules == ruleStyles[0].name {
			none = x
			lines = append(lines, make([]string, len(lines[0])))
			copy(lines[len(lines)-1], []string{fmt.Sprint(x.Policies), fmt.Sprint(x.Peers), x.Flow})
		}
		for i, s := range ruleStyles {
			if s.name == x.Rules {
				lines[len(lines)-1][3+i] = fmt.Sprintf("%d (+%d); %d", x.CPU.Nanoseconds(), (x.CPU - none.CPU).Nanoseconds(), x.Rate/1000)
			}
		}
	}
	return markdown(lines)
}
